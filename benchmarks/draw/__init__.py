"""Pictures of records, and of layouts; nothing is measured."""

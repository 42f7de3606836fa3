"""What operations cost on this machine: measured by circuits that a backend runs, and used to predict others."""

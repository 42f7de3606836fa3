"""Cost tables of a machine: the time of every operation, measured by circuits that a backend runs."""

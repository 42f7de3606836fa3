"""soak: the service under load and faults for long. Nothing is imitated: processes, signals, sockets, a disk."""

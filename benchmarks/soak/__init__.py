"""The service for long, under load, faults and restarts. Nothing is imitated: processes, signals, sockets, a disk."""

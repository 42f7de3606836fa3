"""What the processes take in memory, divided and predicted before any of it is taken."""

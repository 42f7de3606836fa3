"""What an operator sees: logs, metrics, and the time of stages."""

"""What an operation costs on a backend, and what a circuit costs: counts, keys, bytes, predicted time."""

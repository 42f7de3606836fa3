"""From a plan to the circuit that runs it."""

"""Times, memory and precision on this machine; times are to be compared within one run."""

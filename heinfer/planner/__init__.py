"""A plan for a folded network: layouts, kernels and levels, searched for the least cost."""

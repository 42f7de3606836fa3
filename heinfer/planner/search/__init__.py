"""The search over a network: which maps are merged, which layout and which kernel each layer has."""

"""The search over a network: which maps are fused, which layout and which kernel each layer has."""

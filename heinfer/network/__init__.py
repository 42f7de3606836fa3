"""The network as tensors and operators, each a sparse matrix or a square; folded before it is planned."""

"""One affine layer between two layouts: its diagonals, as baby and giant steps (BSGS), then reductions."""

"""Evaluates encrypted CKKS circuits on public words. heinfer's backend ``native`` is the interface to use."""

from heinfer_native._native import (
    FORMAT,
    Code,
    Control,
    Keys,
    Program,
    Ring,
    encode,
    expand_seed,
    instruction_sets,
    row_stride,
    rows_needed,
)

__all__ = [
    "FORMAT",
    "Code",
    "Control",
    "Keys",
    "Program",
    "Ring",
    "encode",
    "expand_seed",
    "instruction_sets",
    "row_stride",
    "rows_needed",
]

"""Evaluates encrypted CKKS circuits on public words. heinfer's backend ``native`` is the interface to use."""

from heinfer_native._native import (
    FORMAT,
    Code,
    Control,
    Kept,
    Keys,
    Program,
    Ring,
    encode,
    expand_seed,
    instruction_sets,
    reduced,
    row_stride,
    rows_needed,
    sum_rows_needed,
)

__all__ = [
    "FORMAT",
    "Code",
    "Control",
    "Kept",
    "Keys",
    "Program",
    "Ring",
    "encode",
    "expand_seed",
    "instruction_sets",
    "reduced",
    "row_stride",
    "rows_needed",
    "sum_rows_needed",
]

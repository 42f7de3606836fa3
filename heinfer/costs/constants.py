"""What constants take that do not stay as residues: they are made of coefficients, or of slots, in every run."""

from __future__ import annotations

from heinfer.backends.native import NativePlan
from heinfer.backends.native.instructions import Kept, Sum
from heinfer.costs.tables import CostTable


def constants_milliseconds(plan: NativePlan, table: CostTable) -> float:
    """Milliseconds of a run on the native backend beside those of its operations, one thread.

    A table has no row for a transform alone. A rescale consists of them: of two polynomials, each an inverse one and a
    forward one for each row that is left; its other work, which is a few per cent, is counted with them.
    """
    spent = 0.0
    for instruction in plan.instructions:
        if isinstance(instruction, Sum) and instruction.kept is not Kept.RESIDUES:
            rows = plan.residues[instruction.out].rows
            slots = instruction.kept is Kept.SLOTS
            one = table("encode", rows - 1) if slots else rows * transform_milliseconds(table)
            spent += instruction.constants * one
    return spent


def transform_milliseconds(table: CostTable) -> float:
    """Milliseconds of one transform of a row."""
    top = max(table.levels - 1, 1)
    return table("rescale", top) / (2 * (top + 1))

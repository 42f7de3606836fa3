"""Predicted time of a circuit: the sum over the operations that will run, each at its level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heinfer.circuit.ir import Circuit, Kind
from heinfer.costs.tables import HOISTED, CostTable

ROWS: Mapping[Kind, str] = {
    Kind.ROTATE: "rotation",
    Kind.ADD: "add",
    Kind.ADD_PLAIN: "add",
    Kind.MULTIPLY: "square",
    Kind.RELINEARIZE: "relinearize",
    Kind.RESCALE: "rescale",
    Kind.DROP_LEVEL: "drop_level",
}
"""Row of a cost table for each kind but INPUT, which costs nothing, and MULTIPLY_PLAIN: "hma" without its "add"."""


def predict(circuit: Circuit, levels: Sequence[int], cost: CostTable) -> tuple[float, ...]:
    """Return the milliseconds of every operation; their sum is the time of a run, constants already encoded.

    The first of the rotations of one value pays for the digits.
    """
    return tuple(
        price(op.kind, levels[op.args[0]], cost, hoisted=shares) if op.args else 0.0
        for op, shares in zip(circuit.ops, sharing_digits(circuit), strict=True)
    )


def sharing_digits(circuit: Circuit) -> list[bool]:
    """Of every operation, whether it is a rotation of what an earlier one has decomposed into digits."""
    groups: set[int] = set()
    shares = []
    for op in circuit.ops:
        shares.append(op.hoist in groups)
        if op.hoist >= 0:
            groups.add(op.hoist)
    return shares


def price(kind: Kind, level: int, cost: CostTable, *, hoisted: bool = False) -> float:
    """Milliseconds of one operation whose argument is at a level; ``hoisted``: it shares the digits of another."""
    if hoisted:
        return cost(HOISTED, level)
    if kind is Kind.MULTIPLY_PLAIN:
        return cost("hma", level) - cost("add", level)
    return cost(ROWS[kind], level)


def by_kind(circuit: Circuit, milliseconds: Sequence[float]) -> dict[str, float]:
    """Sum the milliseconds of a circuit's operations by their kind."""
    totals: dict[str, float] = {}
    for op, spent in zip(circuit.ops, milliseconds, strict=True):
        totals[op.kind.value] = totals.get(op.kind.value, 0.0) + spent
    return totals

"""Levels of a circuit's values, and of the keys that it uses, without parameters or scales."""

from __future__ import annotations

from collections.abc import Mapping

from heinfer.circuit.ir import KEY_SWITCHES, Circuit, Kind


def levels(circuit: Circuit, input_level: int) -> list[int]:
    """The level of every value."""
    found: list[int] = []
    for op in circuit.ops:
        lower = op.kind in (Kind.RESCALE, Kind.DROP_LEVEL)
        found.append(min(found[a] for a in op.args) - lower if op.args else input_level)
    return found


def key_levels(circuit: Circuit, input_level: int) -> Mapping[int, int]:
    """The step of every key that the circuit uses, 0 for relinearization -> the highest level at which it does."""
    highest: dict[int, int] = {}
    for op, level in zip(circuit.ops, levels(circuit, input_level), strict=True):
        if op.kind in KEY_SWITCHES:
            step = op.step if op.kind is Kind.ROTATE else 0
            highest[step] = max(highest.get(step, 0), level)
    return dict(sorted(highest.items()))

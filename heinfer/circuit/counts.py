"""Counts are facts: they come from interpreting the very circuit that runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from heinfer.circuit.ir import KEY_SWITCHES, Circuit, Kind, Op


@dataclass(frozen=True)
class Counts:
    """Operations of a circuit or of one of its layers."""

    rotations: int = 0
    rotations_hoisted: int = 0
    key_switches: int = 0
    hma: int = 0
    ct_ct_mults: int = 0
    plaintexts: int = 0
    rescales: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def count(ops: Iterable[Op]) -> Counts:
    """Count operations; ``rotations_hoisted`` are those that a backend with hoisting shares digits for."""
    total = Counts()
    for op in ops:
        total += Counts(
            rotations=op.kind is Kind.ROTATE,
            rotations_hoisted=op.kind is Kind.ROTATE and op.hoist >= 0,
            key_switches=op.kind in KEY_SWITCHES,
            hma=op.kind is Kind.MULTIPLY_PLAIN,
            ct_ct_mults=op.kind is Kind.MULTIPLY,
            plaintexts=op.constant >= 0,
            rescales=op.kind is Kind.RESCALE,
        )
    return total


def count_circuit(circuit: Circuit) -> Counts:
    """Counts of the whole circuit."""
    return count(circuit.ops)


def count_layers(circuit: Circuit) -> tuple[Counts, ...]:
    """Counts of each layer, in the order of ``circuit.layers``."""
    return tuple(count(circuit.ops[number] for number in numbers) for numbers in circuit.by_layer)

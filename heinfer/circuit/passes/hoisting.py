"""Hoisting: rotations of one value can share the digit decomposition of their input.

A mark only; a backend that cannot hoist (SEAL's interface cannot) ignores it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from heinfer.circuit.ir import Circuit, Kind


def mark_hoisting(circuit: Circuit) -> Circuit:
    """Number the groups of two or more rotations that read the same value."""
    readers = Counter(op.args[0] for op in circuit.ops if op.kind is Kind.ROTATE)
    groups = {value: group for group, value in enumerate(v for v, n in readers.items() if n > 1)}
    ops = (replace(op, hoist=groups.get(op.args[0], -1)) if op.kind is Kind.ROTATE else op for op in circuit.ops)
    return replace(circuit, ops=tuple(ops))

"""Interleaving: a circuit for one tensor becomes one for a batch of them, in more slots, of as many operations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from heinfer.circuit.ir import Circuit


def interleave(circuit: Circuit, batch: int) -> Circuit:
    """Every slot becomes ``batch`` neighbours, one of each tensor: rotations grow, constants repeat."""
    if batch == 1:
        return circuit
    ops = tuple(replace(op, step=op.step * batch) for op in circuit.ops)
    constants = tuple(vector if vector.size == 1 else np.repeat(vector, batch) for vector in circuit.constants)
    return replace(circuit, slots=circuit.slots * batch, ops=ops, constants=constants)

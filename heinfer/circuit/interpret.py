"""Cleartext interpretation of a circuit: every ciphertext is a vector of slots in numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.ir import Circuit, Kind, Op

SlotBatch = NDArray[np.float64]


def interpret(circuit: Circuit, inputs: SlotBatch) -> Iterator[tuple[int, Op, SlotBatch]]:
    """Yield every value with its slots, in order, keeping only those still needed.

    Args:
        inputs: (batch, ciphertexts, slots).
    """
    live: dict[int, SlotBatch] = {}
    for number, op in circuit:
        live[number] = _evaluate(op, [live[a] for a in op.args], circuit, inputs)
        yield number, op, live[number]
        for argument in {*op.args, number}:
            if circuit.last_use.get(argument, -1) <= number:
                live.pop(argument, None)


def _evaluate(op: Op, args: list[SlotBatch], circuit: Circuit, inputs: SlotBatch) -> SlotBatch:
    match op.kind:
        case Kind.INPUT:
            return inputs[:, op.input]
        case Kind.ROTATE:
            return np.roll(args[0], -op.step, axis=-1)
        case Kind.MULTIPLY_PLAIN:
            return args[0] * circuit.constants[op.constant]
        case Kind.ADD_PLAIN:
            return args[0] + circuit.constants[op.constant]
        case Kind.ADD:
            return args[0] + args[1]
        case Kind.MULTIPLY:
            return args[0] * args[1]
        case Kind.RELINEARIZE | Kind.RESCALE | Kind.DROP_LEVEL:
            return args[0]


def run(circuit: Circuit, inputs: SlotBatch) -> SlotBatch:
    """Evaluate on (batch, ciphertexts, slots); returns (batch, outputs, slots)."""
    results = {number: value for number, _, value in interpret(circuit, inputs) if number in circuit.outputs}
    return np.stack([results[o] for o in circuit.outputs], axis=1)

"""Cleartext interpretation of a circuit: every ciphertext is a vector of slots in numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.ir import Circuit, Kind, Op

SlotBatch = NDArray[np.float64]

_BYTES_AT_ONCE = 1 << 19
"""Of one value, of as many inputs as are interpreted together: two or three such values stay in the cache."""


def interpret(circuit: Circuit, inputs: SlotBatch) -> Iterator[tuple[int, Op, SlotBatch]]:
    """Yield every value with its slots, in order, keeping only those still needed.

    Args:
        inputs: (batch, ciphertexts, slots).
    """
    live: dict[int, SlotBatch] = {}
    for number, op in circuit:
        live[number] = evaluate(op, [live[a] for a in op.args], circuit, inputs)
        yield number, op, live[number]
        for argument in {*op.args, number}:
            if circuit.last_use.get(argument, -1) <= number:
                live.pop(argument, None)


def evaluate(op: Op, args: list[SlotBatch], circuit: Circuit, inputs: SlotBatch) -> SlotBatch:
    """One operation's result, shape (batch, slots)."""
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
    outputs = np.zeros((len(inputs), len(circuit.outputs), circuit.slots))
    for some, part in in_parts(inputs):
        results = {number: value for number, _, value in interpret(circuit, part) if number in circuit.outputs}
        outputs[some] = np.stack([results[o] for o in circuit.outputs], axis=1)
    return outputs


def in_parts(inputs: SlotBatch) -> Iterator[tuple[slice, SlotBatch]]:
    """Inputs of shape (batch, ciphertexts, slots), so few at a time that values are small, and where they are."""
    at_once = inputs_at_once(inputs.shape[-1])
    for first in range(0, len(inputs), at_once):
        some = slice(first, first + at_once)
        yield some, np.ascontiguousarray(inputs[some])


def inputs_at_once(slots: int) -> int:
    """How many inputs are interpreted together."""
    return max(1, _BYTES_AT_ONCE // (8 * slots))

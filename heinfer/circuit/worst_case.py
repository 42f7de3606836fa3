"""The worst case: how large values can get for any input that a client can send, by interval arithmetic.

Exact for the first affine layer and its squares, where every input meets every slot once. Later layers read values that
depend on each other, which intervals do not know: what they give is a bound that no input may reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.ir import Circuit, Kind, Op

Interval = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Least and largest value of every slot, shape (slots,) each."""


def worst_cases(circuit: Circuit, inputs: Sequence[Interval]) -> list[float]:
    """The largest |slot| that every value can have for inputs within these intervals, one a ciphertext; may be inf."""
    live: dict[int, Interval] = {}
    found = []
    with np.errstate(over="ignore", invalid="ignore"):
        for number, op in circuit:
            low, high = live[number] = _interval(op, [live[a] for a in op.args], circuit, inputs)
            most = float(np.maximum(-low, high).max())
            found.append(most if most < inf else inf)  # inf - inf is no number, and no bound
            for argument in set(op.args):
                if circuit.last_use[argument] == number:
                    del live[argument]
    return found


def _interval(op: Op, args: list[Interval], circuit: Circuit, inputs: Sequence[Interval]) -> Interval:
    match op.kind:
        case Kind.INPUT:
            return inputs[op.input]
        case Kind.ROTATE:
            low, high = args[0]
            return np.roll(low, -op.step), np.roll(high, -op.step)
        case Kind.MULTIPLY_PLAIN:
            constant = circuit.constants[op.constant]
            return _hull([end * constant for end in args[0]])
        case Kind.ADD_PLAIN:
            low, high = args[0]
            return low + circuit.constants[op.constant], high + circuit.constants[op.constant]
        case Kind.ADD:
            return args[0][0] + args[1][0], args[0][1] + args[1][1]
        case Kind.MULTIPLY if op.args[0] == op.args[1]:
            low, high = args[0]
            least, most = _hull([low * low, high * high])
            return np.where((low <= 0) & (high >= 0), 0.0, least), most
        case Kind.MULTIPLY:
            return _hull([x * y for x in args[0] for y in args[1]])
        case _:
            return args[0]


def _hull(ends: list[NDArray[np.float64]]) -> Interval:
    return np.minimum.reduce(ends), np.maximum.reduce(ends)

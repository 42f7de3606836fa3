"""What calibration data say of every value of a circuit: its bound and its power, slot by slot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.interpret import SlotBatch, interpret
from heinfer.circuit.ir import Circuit

MARGIN = 1.5
"""Declared bounds are this much larger than anything calibration saw."""

_AT_ONCE = 32  # inputs interpreted together: their values stay in the cache


@dataclass(frozen=True, eq=False)
class Statistics:
    """Observed ranges of a circuit's values.

    Attributes:
        bounds: largest |slot| of every value, partial sums and unused slots included, times the margin.
        power: (values, slots) mean of slot^2 over the calibration inputs.
        outputs: (inputs, ciphertexts, slots) what leaves the circuit.
    """

    bounds: tuple[float, ...]
    power: NDArray[np.float64]
    outputs: SlotBatch


def observe(circuit: Circuit, inputs: SlotBatch, margin: float) -> Statistics:
    """Interpret a circuit on calibration inputs of shape (batch, ciphertexts, slots).

    Args:
        margin: factor >= 1 between what was seen and what is declared as the bound.
    """
    largest = np.zeros(len(circuit.ops))
    power = np.zeros((len(circuit.ops), circuit.slots))
    outputs = np.zeros((len(inputs), len(circuit.outputs), circuit.slots))
    for first in range(0, len(inputs), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        for number, _, value in interpret(circuit, inputs[some]):
            largest[number] = max(largest[number], float(np.abs(value).max()))
            power[number] += np.einsum("bs,bs->s", value, value)
            for place in (place for place, output in enumerate(circuit.outputs) if output == number):
                outputs[some, place] = value
    return Statistics(tuple((largest * margin).tolist()), power / len(inputs), outputs)

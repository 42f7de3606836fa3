"""What calibration data say of every value of a circuit: its bound; and of what meets a factor, its power by slot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.interpret import SlotBatch, in_parts, interpret
from heinfer.circuit.ir import Circuit, Kind
from heinfer.tell import Tell, say_nothing

MARGIN = 1.5
"""Declared bounds are this much larger than anything calibration saw."""

_MULTIPLIES = frozenset({Kind.MULTIPLY_PLAIN, Kind.MULTIPLY})
_SAME_SLOTS = frozenset({Kind.ROTATE, Kind.RELINEARIZE, Kind.RESCALE, Kind.DROP_LEVEL})
"""Operations whose value has the slots of their argument, in the same order or rotated."""
_KNOWN_AFTERWARDS = _SAME_SLOTS | {Kind.MULTIPLY_PLAIN}


@dataclass(frozen=True, eq=False)
class BySlot:
    """Of every value that is multiplied something for each slot: held once for all rotations of a value.

    Attributes:
        of: of the values that are computed, (slots,) each.
        sources: of every value that is multiplied: which of them it is, and by how many slots rotated to the left.
    """

    of: Mapping[int, NDArray[np.float64]]
    sources: Mapping[int, tuple[int, int]]

    def __getitem__(self, number: int) -> NDArray[np.float64]:
        source, step = self.sources[number]
        return np.roll(self.of[source], -step) if step else self.of[source]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Observed ranges of a circuit's values.

    Attributes:
        bounds: largest |slot| of every value, partial sums and unused slots included, times the margin.
        power: mean of slot^2 over the calibration inputs, of the values that are multiplied: noise asks for no others.
        outputs: (inputs, ciphertexts, slots) what leaves the circuit.
    """

    bounds: tuple[float, ...]
    power: BySlot
    outputs: SlotBatch


def observe(circuit: Circuit, inputs: SlotBatch, margin: float, tell: Tell = say_nothing) -> Statistics:
    """Interpret a circuit on calibration inputs of shape (batch, ciphertexts, slots).

    Args:
        margin: factor >= 1 between what was seen and what is declared as the bound.
        tell: is told how many inputs are through.
    """
    sources = _sources(circuit)
    computed = sorted({source for source, _ in sources.values()})
    power, peaks = ({number: np.zeros(circuit.slots) for number in computed} for _ in range(2))
    largest = np.zeros(len(circuit.ops))
    outputs = np.zeros((len(inputs), len(circuit.outputs), circuit.slots))
    for some, part in in_parts(inputs):
        tell("calibrate", some.start, len(inputs))
        for number, op, value in interpret(circuit, part):
            if op.kind not in _KNOWN_AFTERWARDS:
                largest[number] = max(largest[number], float(value.max()), -float(value.min()))
            if number in power:
                for row in value:
                    power[number] += row * row
                    np.maximum(peaks[number], np.abs(row), out=peaks[number])
            for place in (place for place, output in enumerate(circuit.outputs) if output == number):
                outputs[some, place] = value
    _complete(largest, circuit, BySlot(peaks, sources))
    means = {number: found / len(inputs) for number, found in power.items()}
    return Statistics(tuple((largest * margin).tolist()), BySlot(means, sources), outputs)


def _complete(largest: NDArray[np.float64], circuit: Circuit, peaks: BySlot) -> None:
    """The largest |slot| of products with constants, and of what has the slots of another value.

    Rounding is monotonic: the largest product in a slot is that of the largest |slot|, to the last bit.
    """
    for number, op in circuit:
        if op.kind is Kind.MULTIPLY_PLAIN:
            largest[number] = (np.abs(circuit.constants[op.constant]) * peaks[op.args[0]]).max()
        elif op.kind in _SAME_SLOTS:
            largest[number] = largest[op.args[0]]


def _sources(circuit: Circuit) -> dict[int, tuple[int, int]]:
    """Of every value that is multiplied: the computed value whose slots it has, rotated by how many to the left."""
    moved: dict[int, tuple[int, int]] = {}
    for number, op in circuit:
        source, step = moved[op.args[0]] if op.kind in _SAME_SLOTS else (number, 0)
        moved[number] = source, (step + op.step) % circuit.slots
    return {argument: moved[argument] for op in circuit.ops if op.kind in _MULTIPLIES for argument in op.args}

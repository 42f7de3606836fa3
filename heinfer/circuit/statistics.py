"""What calibration data say of every value of a circuit: its bound; and of what meets a factor, its power by slot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.interpret import SlotBatch, interpret
from heinfer.circuit.ir import Circuit, Kind
from heinfer.tell import Tell, say_nothing

MARGIN = 1.5
"""Declared bounds are this much larger than anything calibration saw."""

BYTES_AT_ONCE = 1 << 18
"""Of one value, of so many inputs as are interpreted together: two or three such values stay in the cache."""
_SUMMED_APART = 32  # inputs: powers are sums of sums of so many, which keeps their rounding small

_MULTIPLIES = frozenset({Kind.MULTIPLY_PLAIN, Kind.MULTIPLY})
_PASSES_ON = frozenset({Kind.RELINEARIZE, Kind.RESCALE, Kind.DROP_LEVEL})


@dataclass(frozen=True, eq=False)
class Power:
    """Mean of slot^2 of the values that something is multiplied with: all that the noise model asks for.

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
        power: mean of slot^2 over the calibration inputs, of the values that are multiplied.
        outputs: (inputs, ciphertexts, slots) what leaves the circuit.
    """

    bounds: tuple[float, ...]
    power: Power
    outputs: SlotBatch


def observe(circuit: Circuit, inputs: SlotBatch, margin: float, tell: Tell = say_nothing) -> Statistics:
    """Interpret a circuit on calibration inputs of shape (batch, ciphertexts, slots).

    Args:
        margin: factor >= 1 between what was seen and what is declared as the bound.
        tell: is told how many inputs are through.
    """
    sources = _sources(circuit)
    power = {source: np.zeros(circuit.slots) for source, _ in sources.values()}
    largest = np.zeros(len(circuit.ops))
    outputs = np.zeros((len(inputs), len(circuit.outputs), circuit.slots))
    for group in _parts(0, len(inputs), _SUMMED_APART):
        of_group = {source: np.zeros(circuit.slots) for source in power}
        for some in _parts(group.start, group.stop, inputs_at_once(circuit.slots)):
            tell("calibrate", some.start, len(inputs))
            for number, op, value in interpret(circuit, inputs[some]):
                if op.kind is Kind.ROTATE or op.kind in _PASSES_ON:
                    largest[number] = largest[op.args[0]]
                else:
                    largest[number] = max(largest[number], float(value.max()), -float(value.min()))
                if number in of_group:
                    for row in value:
                        of_group[number] += row * row
                for place in (place for place, output in enumerate(circuit.outputs) if output == number):
                    outputs[some, place] = value
        for number, found in of_group.items():
            power[number] += found
    means = {number: found / len(inputs) for number, found in power.items()}
    return Statistics(tuple((largest * margin).tolist()), Power(means, sources), outputs)


def inputs_at_once(slots: int) -> int:
    """How many inputs are interpreted together."""
    return max(1, BYTES_AT_ONCE // (8 * slots))


def _parts(first: int, end: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, end)) for start in range(first, end, size))


def _sources(circuit: Circuit) -> dict[int, tuple[int, int]]:
    """Of every value that is multiplied: the computed value whose slots it has, rotated by how many to the left."""
    moved: dict[int, tuple[int, int]] = {}
    for number, op in circuit:
        source, step = moved[op.args[0]] if op.kind is Kind.ROTATE or op.kind in _PASSES_ON else (number, 0)
        moved[number] = source, (step + op.step) % circuit.slots
    return {argument: moved[argument] for op in circuit.ops if op.kind in _MULTIPLIES for argument in op.args}

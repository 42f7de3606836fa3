"""From a circuit and calibration inputs to scales, bounds, headroom and the precision of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, ldexp, log2

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.interpret import SlotBatch
from heinfer.circuit.ir import Circuit
from heinfer.circuit.passes import Scales, assign_scales, choose_scales, input_bits
from heinfer.circuit.precision import LEAST_BITS, WANTED_BITS, Scores
from heinfer.circuit.statistics import MARGIN, Statistics, observe
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.compiler.precision import Precision, predict_precision, require
from heinfer.formats.bundle import Bundle
from heinfer.layout.layout import Layout
from heinfer.layout.parts import TensorPart
from heinfer.tell import Tell, say_nothing


@dataclass(frozen=True, eq=False)
class Scaled:
    """A circuit with its scales.

    Attributes:
        typed: every plaintext factor has a scale.
        bounds: bound on |slot| of every value.
        range: declared bound on what leaves it.
        precision: predicted.
        scores: of the calibration inputs.
    """

    typed: TypedCircuit
    bounds: tuple[float, ...]
    range: float
    precision: Precision
    scores: Scores


def scale(  # noqa: PLR0913 - one keyword for each thing that can be said
    circuit: Circuit,
    parameters: Parameters,
    level: int,
    inputs: SlotBatch,
    output: Layout,
    *,
    largest_input: float,
    outputs: Sequence[tuple[TensorPart, bool]],
    headroom: int | None = None,
    least_bits: float = 0.0,
    tell: Tell = say_nothing,
) -> Scaled:
    """Observe ranges on calibration inputs, choose scales and predict the noise that they leave.

    Args:
        level: of the inputs.
        inputs: (batches, ciphertexts, slots).
        output: layout of the scores of a batch.
        largest_input: |value| at the end of the declared range.
        outputs: the place of each in an image's scores, and whether only the label of its largest score counts.
        headroom: bits to keep free at the output, None for as many as the precision allows.
        least_bits: of precision that these leave, if LEAST_BITS are too few.
        tell: is told what is done.

    Raises:
        RangeError: when not even low scales leave room for the values.
    """
    statistics = observe(circuit, inputs, MARGIN, tell)
    seen = Scores.seen(statistics, output, outputs)
    bits = input_bits(largest_input, parameters, level)
    least = max(least_bits, LEAST_BITS)

    def chosen(least_bits: float) -> Scales:
        tell("choose scales", 0, 0)
        return choose_scales(circuit, parameters, level, statistics, seen, headroom, bits, least_bits)

    def predicted(scales: Scales) -> tuple[TypedCircuit, Precision]:
        tell("predict noise", 0, 0)
        typed = assign_scales(circuit, parameters, level, scales)
        return typed, predict_precision(typed, statistics, inputs, seen)

    scales = chosen(least)
    typed, precision = predicted(scales)
    if headroom is None and precision.bits < least:  # the bound that the search keeps is none on what is predicted
        others = chosen(2 * least - precision.bits)
        typed, precision = (typed, precision) if others == scales else predicted(others)
    return Scaled(typed, statistics.bounds, _range(typed, statistics), precision, seen)


_RANGE_STEP = 0.125
"""Bits to which the range of the scores is told."""


def _range(typed: TypedCircuit, statistics: Statistics) -> float:
    """The bound on the outputs: what the parameters can represent, less whole steps that are free."""
    output = typed.output_types[0]
    capacity = typed.parameters.capacity(output.level, output.scale)
    bound = max(statistics.bounds[number] for number in typed.circuit.outputs)
    free = log2(capacity / bound) if bound else 0.0
    return float(capacity * 2.0 ** (-_RANGE_STEP * max(0, floor(free / _RANGE_STEP))))


def recalibrate(
    bundle: Bundle, inputs: NDArray[np.float64], headroom: int | None = None, least_bits: float = WANTED_BITS
) -> Bundle:
    """The same model with bounds, scales and headroom chosen anew, on preprocessed inputs (n, *input_shape).

    Layouts, keys and counts stay. Raises what :func:`scale` does, and NoiseError for less than the least bits.
    """
    manifest = bundle.manifest
    layout, part = manifest.input_layout(), manifest.input
    batches = -(-len(inputs) // manifest.batch)
    packed = layout.pack(np.resize(inputs, (batches * manifest.batch, *inputs.shape[1:])).reshape(-1, *layout.shape))
    found = scale(
        bundle.circuit,
        bundle.typed.parameters,
        part.level,
        packed,
        manifest.output_layout(),
        largest_input=max(part.preprocessing.largest for part in manifest.inputs),
        outputs=manifest.output_kinds,
        headroom=headroom,
    )
    require(found.precision, found.scores, least_bits)
    outputs = tuple(
        output.model_copy(
            update={"scale": found.typed.output_types[0].scale, "range": ldexp(found.range, output.exponent)}
        )
        for output in manifest.outputs
    )
    images = tuple(image.model_copy(update={"scale": found.typed.input_scale}) for image in manifest.inputs)
    changed = manifest.model_copy(update={"inputs": images, "outputs": outputs})
    return replace(
        bundle,
        manifest=changed,
        circuit=found.typed.circuit,
        bounds=found.bounds,
        metadata={**bundle.metadata, **found.precision.metadata},
    )

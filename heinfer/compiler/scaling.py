"""From a circuit and calibration inputs to scales, bounds, headroom and what noise will leave of the scores."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from math import floor, ldexp, log2, prod

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.interpret import SlotBatch
from heinfer.circuit.ir import Circuit
from heinfer.circuit.noise import predict_noise
from heinfer.circuit.passes import assign_scales, choose_scales
from heinfer.circuit.precision import Scores
from heinfer.circuit.statistics import MARGIN, Statistics, observe
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.errors import NoiseError, NoiseWarning
from heinfer.formats.bundle import Bundle
from heinfer.layout.layout import Layout
from heinfer.tell import Tell, say_nothing


@dataclass(frozen=True, eq=False)
class Scaled:
    """A circuit with its scales.

    Attributes:
        typed: every plaintext factor has a scale.
        bounds: bound on |slot| of every value.
        range: declared bound on what leaves it.
        precision_bits: of the scores, predicted at worst.
    """

    typed: TypedCircuit
    bounds: tuple[float, ...]
    range: float
    precision_bits: float

    @property
    def metadata(self) -> dict[str, str]:
        """What a bundle says of it."""
        return {"predicted precision": f"{self.precision_bits:.1f} bits"}


def scale(  # noqa: PLR0913 - one keyword for each thing that can be said
    circuit: Circuit,
    parameters: Parameters,
    level: int,
    inputs: SlotBatch,
    output: Layout,
    *,
    largest_input: float,
    scores: int,
    is_classification: bool,
    headroom: int | None = None,
    tell: Tell = say_nothing,
) -> Scaled:
    """Observe ranges on calibration inputs, choose scales and look at the noise that they leave.

    Args:
        level: of the inputs.
        inputs: (batches, ciphertexts, slots).
        output: layout of the scores of a batch.
        largest_input: |value| at the end of the declared range.
        scores: of one image.
        is_classification: whether only the label of the largest score counts.
        headroom: bits to keep free at the output, None for as many as the precision allows.
        tell: is told what is done.

    Raises:
        RangeError: when not even low scales leave room for the values.
        NoiseError: when noise drowns the scores; a NoiseWarning when it is only near to that.
    """
    statistics = observe(circuit, inputs, MARGIN, tell)
    tell("choose scales", 0, 0)
    seen = Scores.of(statistics, output, scores, is_classification)
    scales = choose_scales(circuit, parameters, level, statistics, seen, headroom, largest_input=largest_input)
    typed = assign_scales(circuit, parameters, level, scales)
    bits = _look_at_noise(typed, statistics, seen)
    return Scaled(typed, statistics.bounds, _range(typed, statistics), bits)


_RANGE_STEP = 0.125
"""Bits to which the range of the scores is told."""


def _range(typed: TypedCircuit, statistics: Statistics) -> float:
    """The bound on the outputs: what the parameters can represent, less whole steps that are free."""
    output = typed.output_types[0]
    capacity = typed.parameters.capacity(output.level, output.scale)
    bound = max(statistics.bounds[number] for number in typed.circuit.outputs)
    free = log2(capacity / bound) if bound else 0.0
    return float(capacity * 2.0 ** (-_RANGE_STEP * max(0, floor(free / _RANGE_STEP))))


def recalibrate(bundle: Bundle, inputs: NDArray[np.float64], headroom: int | None = None) -> Bundle:
    """The same model with bounds, scales and headroom chosen anew, on preprocessed inputs (n, *input_shape).

    Layouts, keys and counts stay. Raises what :func:`scale` does.
    """
    manifest = bundle.manifest
    layout, part = manifest.input.layout.to_layout(), manifest.input
    batches = -(-len(inputs) // manifest.batch)
    packed = layout.pack(np.resize(inputs, (batches * manifest.batch, *inputs.shape[1:])).reshape(-1, *layout.shape))
    found = scale(
        bundle.circuit,
        bundle.typed.parameters,
        part.level,
        packed,
        manifest.output.layout.to_layout(),
        largest_input=part.preprocessing.largest,
        scores=prod(manifest.output_shape),
        is_classification=manifest.output.kind == "classification",
        headroom=headroom,
    )
    changes = {
        "scale": found.typed.output_types[0].scale,
        "range": ldexp(found.range, manifest.output.exponent),
    }
    output = manifest.output.model_copy(update=changes)
    image = part.model_copy(update={"scale": found.typed.input_scale})
    changed = manifest.model_copy(update={"inputs": (image,), "outputs": (output,)})
    return replace(
        bundle,
        manifest=changed,
        circuit=found.typed.circuit,
        bounds=found.bounds,
        metadata={**bundle.metadata, **found.metadata},
    )


def _look_at_noise(typed: TypedCircuit, statistics: Statistics, scores: Scores) -> float:
    """Predicted bits of precision of the scores; refuses, or warns, where noise takes labels or all bits."""
    variances = predict_noise(typed, statistics)
    bits = scores.precision_bits(variances)
    if scores.are_clear(variances):
        return bits
    layers = range(-1, len(typed.circuit.layers))
    parts = [predict_noise(typed, statistics, layer) for layer in layers]
    noisiest = max(layers, key=lambda layer: float(scores.deviations(parts[layer + 1]).max()))
    name = typed.circuit.layers[noisiest].name if noisiest >= 0 else "encryption"
    deviation = float(scores.deviations(variances).max())
    if scores.is_classification:
        told = (
            f"changes the label of {scores.wrong_share(variances):.1%} of the calibration inputs: half of them have "
            f"their two largest scores within {np.median(scores.margins):.2g} of each other"
        )
    else:
        left = max(scores.bits_of_variation(variances), 0.0)
        told = f"leaves {left:.1f} bits of what a score tells of the calibration inputs"
    message = (
        f"{name}: predicted noise {told}, and noise has a deviation of {deviation:.2g}, most of it from this layer. "
        "Train for scores that are further apart, or for values that are alike in size in every layer"
    )
    if scores.are_drowned(variances):
        raise NoiseError(message)
    warnings.warn(message, NoiseWarning, stacklevel=2)
    return bits

"""What noise will leave of the scores: predicted, told by layer, and refused where it is less than was asked for."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from math import floor, inf, log2

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.drawn import drawn_at_most, keys_of, run_noisy
from heinfer.circuit.interpret import SlotBatch
from heinfer.circuit.noise import noise_by_layer
from heinfer.circuit.precision import COMFORTABLE_BITS, WORST_OF, Scores
from heinfer.circuit.statistics import Statistics
from heinfer.circuit.typed import TypedCircuit
from heinfer.errors import NoiseError, NoiseWarning

BITS, BITS_BY_LAYER = "predicted precision", "predicted precision by layer"
"""Under which a bundle's metadata have them."""


@dataclass(frozen=True, eq=False)
class Precision:
    """Predicted of a compiled circuit.

    Attributes:
        bits: of the scores that are right, of the worst of WORST_OF images.
        names: of encryption and every layer.
        by_layer: the bits that would be left if each of these alone were noisy; inf where it adds nothing.
        deviations: standard deviation of the error of every score of an image, shape (scores,), in the circuit's units.
    """

    bits: float
    names: tuple[str, ...]
    by_layer: tuple[float, ...]
    deviations: NDArray[np.float64]

    @property
    def noisiest(self) -> str:
        """The layer that adds most, or encryption."""
        return self.names[self.by_layer.index(min(self.by_layer))]

    @property
    def metadata(self) -> dict[str, str]:
        """What a bundle says of it."""
        layers = {name: round(bits, 1) for name, bits in zip(self.names, self.by_layer, strict=True) if bits < inf}
        return {BITS: f"{self.bits:.1f} bits", BITS_BY_LAYER: json.dumps(layers)}


def predict_precision(typed: TypedCircuit, statistics: Statistics, inputs: SlotBatch, scores: Scores) -> Precision:
    """Run calibration inputs (batches, ciphertexts, slots) with drawn errors, and see how far off scores are.

    How much of it comes from which layer is told by variances.
    """
    some = inputs[: drawn_at_most(typed)]
    noisy = scores.layout.unpack(run_noisy(typed, some)).reshape(-1, scores.values.shape[1])
    squares = (noisy - scores.values[: len(noisy)]) ** 2
    keys = np.repeat(keys_of(len(some)), len(noisy) // len(some))  # of the images of a batch
    by_key = np.sqrt([squares[keys == key].mean(axis=0) for key in np.unique(keys)])
    bits = scores.precision_bits(by_key)
    deviations = np.sqrt(squares.mean(axis=0))
    parts = noise_by_layer(typed, statistics)
    added = [float(scores.deviations([part[n] for part in parts]).max()) for n in range(len(parts[0]))]
    whole = float(np.sqrt(np.square(added).sum()))
    by_layer = tuple(bits + log2(whole / one) if one else inf for one in added)
    names = ("encryption", *(layer.name for layer in typed.circuit.layers))
    return Precision(bits, names, by_layer, deviations)


def require(precision: Precision, scores: Scores, wanted: float, most: float | None = None) -> None:
    """Refuse what is less precise than wanted, or drowned in noise; warn where it is near to that.

    Args:
        wanted: bits; 0 for no matter how few.
        most: bits that the widest primes leave, where those were tried.

    Raises:
        NoiseError: names the layer that adds most of the noise, and what would do.
    """
    is_enough = not wanted or precision.bits >= wanted
    if is_enough and precision.bits >= COMFORTABLE_BITS and scores.are_clear(precision.deviations):
        return
    message = (
        f"{precision.noisiest}: {_told(precision, scores)}; noise has a deviation of "
        f"{float(precision.deviations.max()):.2g}, most of it from this layer. {_way_out(precision)}"
    )
    if scores.are_drowned(precision.deviations):
        raise NoiseError(message)
    if not is_enough:
        reach = "" if most is None else f"; the widest primes leave {most:.1f}"
        raise NoiseError(
            f"{message}. {wanted:g} bits are asked for{reach}; fewer are asked for by "
            f"Requirements(precision_bits={max(floor(precision.bits), 0)})"
        )
    warnings.warn(message, NoiseWarning, stacklevel=2)


def _told(precision: Precision, scores: Scores) -> str:
    several = len(scores.outputs) > 1
    for output in scores.outputs:
        deviations = precision.deviations[output.elements]
        if output.is_clear(deviations):
            continue
        of = f" {output.name}" if several else ""
        if output.is_classification:
            return (
                f"predicted noise changes the label{of} of {output.wrong_share(deviations):.1%} of the calibration "
                f"inputs: half of them have their two largest scores within {np.median(output.margins):.2g} of each "
                "other"
            )
        left = max(output.bits_of_variation(deviations), 0.0)
        return f"predicted noise leaves {left:.1f} bits of what a score{of} tells of the calibration inputs"
    return f"predicted noise leaves {precision.bits:.1f} bits of the scores of the worst of {WORST_OF} images"


def _way_out(precision: Precision) -> str:
    if precision.noisiest == "encryption":
        return "Declare the range that inputs really have, no wider: the scale of inputs follows from it"
    return "Train for scores that are further apart, or for values that are alike in size in every layer"

"""What noise leaves of the scores: predicted bits of precision, and the share of labels that it may change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, inf, log, log2, sqrt

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.noise import Variance
from heinfer.circuit.statistics import Statistics
from heinfer.layout.layout import Layout
from heinfer.layout.parts import TensorPart

WORST_OF = 200
"""Images, of the worst of which precision is predicted."""
_WITHIN = 0.75
"""How often the worst error of so many is no larger than predicted."""
WANTED_BITS, COMFORTABLE_BITS = 6.0, 8.0
"""Of precision, predicted of the worst image: fewer than the first are refused unless a user asks for less, fewer than
the second are warned of."""

LEAST_BITS = 8.0
"""Of precision that room for values beyond calibration must leave to the scores, by the bound that the search keeps."""
DEVIATIONS = 4.0
"""The search's worst case: a normal error of 5,000 scores is beyond this once in three times."""

_SMALL = 0.25
"""Of the usual size of an image's scores, which smaller ones count as: two scores near nothing are no measure."""

WARNED_SHARE, REFUSED_SHARE = 0.01, 0.1
"""Of labels that noise is expected to change."""
WARNED_BITS, REFUSED_BITS = 4.0, 0.0
"""That noise leaves, at worst, of what scores that are no classification tell of the inputs."""

_half_erfc = np.vectorize(lambda z: erfc(z / sqrt(2)) / 2, otypes=[np.float64])


@dataclass(frozen=True, eq=False)
class OutputScores:
    """The scores of one output for the calibration inputs, against which noise is held.

    Attributes:
        name: of the output.
        values: (inputs, scores).
        is_classification: whether only the label of the largest score counts.
        elements: where its scores are among those of all outputs.
    """

    name: str
    values: NDArray[np.float64]
    is_classification: bool
    elements: slice

    @property
    def size(self) -> float:
        """Of the largest score: of the image where it is smallest for a classification, otherwise of all images."""
        largest = np.abs(self.values).max(axis=1)
        return float(largest.min() if self.is_classification else largest.max())

    @property
    def margins(self) -> NDArray[np.float64]:
        """How far the largest score of every input is from the next."""
        two = np.sort(self.values, axis=1)[:, -2:]
        apart: NDArray[np.float64] = two[:, -1] - two[:, 0]
        return apart

    def is_clear(self, deviations: NDArray[np.float64]) -> bool:
        """Whether noise with these deviations, shape (scores,), leaves it worth having: no warning is due."""
        if self.is_classification:
            return self.wrong_share(deviations) < WARNED_SHARE
        return self.bits_of_variation(deviations) >= WARNED_BITS

    def is_drowned(self, deviations: NDArray[np.float64]) -> bool:
        """Whether noise leaves too little of it to be compiled at all."""
        if self.is_classification:
            return self.wrong_share(deviations) >= REFUSED_SHARE
        return self.bits_of_variation(deviations) <= REFUSED_BITS

    def bits_of_variation(self, deviations: NDArray[np.float64]) -> float:
        """Bits that noise leaves, at worst, of what a score tells of the inputs: of its range over them."""
        return _bits(float(np.ptp(self.values, axis=0).max()) or self.size, deviations)

    def wrong_share(self, deviations: NDArray[np.float64]) -> float:
        """Share of the inputs whose label noise is expected to change, as if errors were independent."""
        best = self.values.argmax(axis=1)
        ahead = np.take_along_axis(self.values, best[:, None], axis=1) - self.values
        apart = np.sqrt(deviations[best][:, None] ** 2 + deviations**2)
        overtaken = _half_erfc(ahead / np.maximum(apart, np.finfo(float).tiny))
        np.put_along_axis(overtaken, best[:, None], 0.0, axis=1)
        return float(np.minimum(overtaken.sum(axis=1), 1.0).mean())


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of all outputs for the calibration inputs: each output is judged by its own size.

    Attributes:
        values: (inputs, scores).
        layout: of the outputs, of all images of a batch.
        outputs: each by itself.
    """

    values: NDArray[np.float64]
    layout: Layout
    outputs: tuple[OutputScores, ...]

    @classmethod
    def of(cls, values: NDArray[np.float64], layout: Layout, kinds: Sequence[tuple[TensorPart, bool]]) -> Scores:
        """From scores (inputs, scores), and of each output its place and whether it is a classification."""
        each = (
            OutputScores(part.name, values[:, part.elements], is_classification, part.elements)
            for part, is_classification in kinds
        )
        return cls(values, layout, tuple(each))

    @classmethod
    def seen(cls, statistics: Statistics, layout: Layout, kinds: Sequence[tuple[TensorPart, bool]]) -> Scores:
        """Read the scores from what calibration saw leave the circuit."""
        return cls.of(layout.unpack(statistics.outputs).reshape(-1, sum(part.size for part, _ in kinds)), layout, kinds)

    def deviations(self, variances: Sequence[Variance]) -> NDArray[np.float64]:
        """Standard deviation of every score, shape (scores,): that of the image of a batch where it is largest."""
        found = self.layout.unpack(np.sqrt(np.stack(variances)))  # as if the errors of an element's copies were equal
        largest: NDArray[np.float64] = found.reshape(-1, self.values.shape[1]).max(axis=0)
        return largest

    @property
    def sizes(self) -> NDArray[np.float64]:
        """What the errors of every input's scores are held against, shape (inputs, scores)."""
        found = np.empty_like(self.values)
        for own in self.outputs:
            found[:, own.elements] = sizes(own.values, own.is_classification)[:, None]
        return found

    def bound_on_bits(self, variances: Sequence[Variance]) -> float:
        """Bits of the scores that are right, in the worst case: -log2(error / largest score) of the worst output."""
        deviations = self.deviations(variances)
        return min(_bits(own.size, deviations[own.elements]) for own in self.outputs)

    def precision_bits(self, deviations: NDArray[np.float64]) -> float:
        """Bits of the scores that are right, expected of the worst of WORST_OF inputs like these.

        The error of a score is normal, and held against the size of its output's scores: the least t with
        P(every |error| of every input < t size) >= 3/4 gives -log2 t.

        Args:
            deviations: of every score, shape (scores,), or (keys, scores) for keys of which every input has any.
        """
        by_key = np.atleast_2d(deviations)
        if not by_key.any():
            return inf
        every = self.sizes
        if not every[:, by_key.any(axis=0)].max(axis=0).all():
            return -inf
        every = every if np.ptp(every, axis=0).any() else every[:1]
        held = np.repeat(every[:, None], len(by_key), axis=1)[:, by_key > 0] / by_key[by_key > 0]
        least, most = -1100.0, 1100.0
        while most - least > _RESOLUTION:
            bits = (least + most) / 2
            with np.errstate(over="ignore"):
                beyond = _two_sided_tail(np.exp2(-bits) * held)
            within = WORST_OF / len(by_key) * float(np.log1p(-np.minimum(beyond, _ALL)).sum(axis=1).mean())
            least, most = (bits, most) if within >= log(_WITHIN) else (least, bits)
        return least

    def are_clear(self, deviations: NDArray[np.float64]) -> bool:
        """Whether noise leaves all outputs worth having: no warning is due."""
        return all(own.is_clear(deviations[own.elements]) for own in self.outputs)

    def are_drowned(self, deviations: NDArray[np.float64]) -> bool:
        """Whether noise leaves too little of one to be compiled at all."""
        return any(own.is_drowned(deviations[own.elements]) for own in self.outputs)


def sizes(scores: NDArray[np.float64], is_classification: bool) -> NDArray[np.float64]:
    """What errors in scores (inputs, scores) are held against, shape (inputs,): the definition of precision.

    For a classification that is the largest |score| of the input, no less than a quarter of the usual one; values are
    held against the largest of all inputs.
    """
    largest: NDArray[np.float64] = np.abs(scores).max(axis=1)
    if not is_classification:
        return np.full_like(largest, largest.max())
    return np.maximum(largest, _SMALL * np.median(largest))


_RESOLUTION = 1e-3
_ALL = 1 - 1e-12
_TAIL = (
    *(-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806),
    *(0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277),
)


def _two_sided_tail(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(|x| > z >= 0) of a normal x, to 1.2e-7 of itself: the rational Chebyshev fit of erfc in Numerical Recipes."""
    x = np.minimum(z, _FAR) / sqrt(2)
    t = 1 / (1 + x / 2)
    found: NDArray[np.float64] = t * np.exp(np.polynomial.polynomial.polyval(t, _TAIL) - x * x)
    return found


_FAR = 37.0
"""Deviations; what is beyond has no place in a double."""


def _bits(size: float, deviations: NDArray[np.float64]) -> float:
    error = DEVIATIONS * float(deviations.max())
    if not error:
        return inf
    return log2(size / error) if size else -inf

"""What noise leaves of the scores: predicted bits of precision, and the share of labels that it may change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, inf, log2, sqrt

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.noise import Variance
from heinfer.circuit.statistics import Statistics
from heinfer.layout.layout import Layout

LEAST_BITS = 8.0
"""Of precision, predicted at worst, that room for values beyond calibration must leave to the scores.

What is measured is a bit or more above: nine are what the models that ship promise.
"""

DEVIATIONS = 4.0
"""The noise model's worst case: a normal error of 5,000 scores is beyond this once in three times."""

WARNED_SHARE, REFUSED_SHARE = 0.01, 0.1
"""Of labels that noise is expected to change."""
WARNED_BITS, REFUSED_BITS = 4.0, 0.0
"""That noise leaves, at worst, of what scores that are no classification tell of the inputs."""

_half_erfc = np.vectorize(lambda z: erfc(z / sqrt(2)) / 2, otypes=[np.float64])


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of the calibration inputs, against which noise is held.

    Attributes:
        values: (inputs, scores).
        layout: of the outputs, of all images of a batch.
        is_classification: whether only the label of the largest score counts.
    """

    values: NDArray[np.float64]
    layout: Layout
    is_classification: bool

    @classmethod
    def of(cls, statistics: Statistics, layout: Layout, scores: int, is_classification: bool) -> Scores:
        """Read the scores, so many an image, from what calibration saw leave the circuit."""
        return cls(layout.unpack(statistics.outputs).reshape(-1, scores), layout, is_classification)

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

    def deviations(self, variances: Sequence[Variance]) -> NDArray[np.float64]:
        """Standard deviation of every score, shape (scores,): that of the image of a batch where it is largest."""
        found = self.layout.unpack(np.sqrt(np.stack(variances)))  # as if the errors of an element's copies were equal
        largest: NDArray[np.float64] = found.reshape(-1, self.values.shape[1]).max(axis=0)
        return largest

    def precision_bits(self, variances: Sequence[Variance]) -> float:
        """Bits of the scores that are right, at worst: -log2(error / largest score)."""
        return _bits(self.size, self.deviations(variances))

    def are_clear(self, variances: Sequence[Variance]) -> bool:
        """Whether noise leaves them worth having: no warning is due."""
        if self.is_classification:
            return self.wrong_share(variances) < WARNED_SHARE
        return self.bits_of_variation(variances) >= WARNED_BITS

    def are_drowned(self, variances: Sequence[Variance]) -> bool:
        """Whether noise leaves too little of them to be compiled at all."""
        if self.is_classification:
            return self.wrong_share(variances) >= REFUSED_SHARE
        return self.bits_of_variation(variances) <= REFUSED_BITS

    def bits_of_variation(self, variances: Sequence[Variance]) -> float:
        """Bits that noise leaves, at worst, of what a score tells of the inputs: of its range over them."""
        return _bits(float(np.ptp(self.values, axis=0).max()) or self.size, self.deviations(variances))

    def wrong_share(self, variances: Sequence[Variance]) -> float:
        """Share of the inputs whose label noise is expected to change, as if errors were independent."""
        deviations = self.deviations(variances)
        best = self.values.argmax(axis=1)
        ahead = np.take_along_axis(self.values, best[:, None], axis=1) - self.values
        apart = np.sqrt(deviations[best][:, None] ** 2 + deviations**2)
        overtaken = _half_erfc(ahead / np.maximum(apart, np.finfo(float).tiny))
        np.put_along_axis(overtaken, best[:, None], 0.0, axis=1)
        return float(np.minimum(overtaken.sum(axis=1), 1.0).mean())


def _bits(size: float, deviations: NDArray[np.float64]) -> float:
    error = DEVIATIONS * float(deviations.max())
    if not error:
        return inf
    return log2(size / error) if size else -inf

"""Whole test sets in cleartext with the noise of encrypted runs, and inputs as bad as a client can send.

The folded network gives the scores, in a thousandth of the circuit's time; the noise of every score is drawn with the
deviation that it has in the circuit, of which some inputs are run with all errors drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.circuit.drawn import drawn_at_most, run_noisy
from heinfer.circuit.interpret import run
from heinfer.circuit.typed import TypedCircuit
from heinfer.errors import CompileError
from heinfer.formats.manifest import Manifest
from heinfer.network.ir import INPUT, Network, Node
from heinfer.network.joints import AffineSum, Product
from heinfer.network.operators import Affine, Chebyshev, Square
from heinfer.planner.plan import Plan

Array = NDArray[np.float64]

_AT_ONCE = 32  # inputs evaluated together
_STEPS = (1.0, 0.5, 0.25, 0.125)
"""Of the way to the corner of the range that a gradient points at, tried in turn."""
_MOST_STEPS = 30


@dataclass(frozen=True, eq=False)
class TestSet:
    """What encrypted runs of many inputs would give.

    Attributes:
        scores: (inputs, scores), exact.
        noisy: the same with noise.
        deviations: of the noise of every score, shape (scores,).
        sigmas: of every input, by how many deviations of their difference the largest score is ahead of the next;
            inf where there is one score.
    """

    __test__ = False  # no case for pytest

    scores: Array
    noisy: Array
    deviations: Array
    sigmas: Array

    __repr__ = brief_repr

    def _about(self) -> str:
        least = float(self.sigmas.min())
        return (
            f"{len(self.scores)} inputs, {self.changed} labels changed by noise, the closest {least:.1f} sigmas ahead"
        )

    @property
    def changed(self) -> int:
        """Inputs whose label the noise has changed."""
        return int((self.scores.argmax(axis=1) != self.noisy.argmax(axis=1)).sum())


@dataclass(frozen=True, eq=False)
class WorstInput:
    """The input with the largest score that was found, beside the inputs that the search began with.

    Attributes:
        input: preprocessed, shape input_shape.
        score, typical_score: its |score| that is nearest to wrapping around, and the largest of the others there.
        capacity: the |score| at which that one wraps around.
        deviation, typical_deviation: of that score's noise: of its own, and of the others'.
    """

    input: Array
    score: float
    typical_score: float
    capacity: float
    deviation: float
    typical_deviation: float

    __repr__ = brief_repr

    def _about(self) -> str:
        return (
            f"a score of {self.score:.3g}, others {self.typical_score:.3g}, wrapping at {self.capacity:.3g}; "
            f"noise of deviation {self.deviation:.2g}, others {self.typical_deviation:.2g}"
        )

    @property
    def wraps(self) -> bool:
        """Whether some input within the declared range has scores that no answer can hold."""
        return self.score >= self.capacity


def score_deviations(typed: TypedCircuit, plan: Plan, manifest: Manifest, inputs: Array) -> Array:
    """Deviation of the noise of every score, shape (scores,), with all errors drawn for some of the inputs.

    Args:
        inputs: (n, *input_shape); as many as a second or two allow are run.
    """
    packed = plan.input.pack(plan.in_batches(inputs[: drawn_at_most(typed) * plan.batch]))
    errors = plan.output.unpack(run_noisy(typed, packed) - run(typed.circuit, packed))
    by_image = manifest.to_scores(errors.reshape(-1, *manifest.output_shape)).reshape(len(packed) * plan.batch, -1)
    deviations: Array = np.sqrt(np.mean(by_image**2, axis=0))
    return deviations


def simulated(network: Network, deviations: Array, inputs: Array, seed: int) -> TestSet:
    """Scores of a folded network, and the same with noise of these deviations."""
    parts = [network(inputs[first : first + _AT_ONCE]) for first in range(0, len(inputs), _AT_ONCE)]
    scores = np.concatenate(parts).reshape(len(inputs), -1)
    noise = np.random.default_rng(seed).standard_normal(scores.shape) * deviations
    return TestSet(scores, scores + noise, deviations, _sigmas(scores, deviations))


def _sigmas(scores: Array, deviations: Array) -> Array:
    best = scores.argmax(axis=1)
    ahead = np.take_along_axis(scores, best[:, None], axis=1) - scores
    apart = np.sqrt(deviations[best][:, None] ** 2 + deviations**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigmas = np.where(ahead == apart, 0.0, ahead / apart)
    np.put_along_axis(sigmas, best[:, None], np.inf, axis=1)
    least: Array = sigmas.min(axis=1)
    return least


def worst_input(network: Network, inputs: Array, low: Array, high: Array, sizes: Array) -> Array:
    """The input within the range with the largest |score| / size that gradients lead to from each of some inputs.

    Args:
        sizes: of every score.
    """
    found = [_ascend(network, x, low, high, sizes) for x in inputs]
    return max(found, key=lambda x: float(np.abs(network(x[None]).reshape(-1) / sizes).max()))


def _ascend(network: Network, x: Array, low: Array, high: Array, sizes: Array) -> Array:
    scores = network(x[None]).reshape(-1)
    target = int(np.abs(scores / sizes).argmax())
    best = abs(float(scores[target]))
    for _ in range(_MOST_STEPS):
        slope = _gradient(network, x, target)
        corner = np.where(slope > 0, high, low)
        tried = np.stack([x + step * (corner - x) for step in _STEPS])
        reached = np.abs(network(tried).reshape(len(tried), -1)[:, target])
        if reached.max() <= best * (1 + 1e-9):
            break
        x, best = tried[int(reached.argmax())], float(reached.max())
    return x


def _gradient(network: Network, x: Array, target: int) -> Array:
    """Of |score| with respect to an input of shape input_shape, by going back through the network."""
    values = [value.reshape(-1) for value in network.values(x[None])]  # the input's comes first
    last = len(network.nodes) - 1
    slopes: dict[int, Array] = {last: np.zeros(values[-1].size)}
    slopes[last][target] = np.sign(values[-1][target])
    for position in range(last, -1, -1):
        slope = slopes.pop(position, None)
        if slope is None:
            continue
        reads = network.reads[position]
        shape = network.shapes[position]
        for tensor, part in zip(reads, _back(network.nodes[position], slope, values, reads, shape), strict=True):
            slopes[tensor] = slopes[tensor] + part if tensor in slopes else part
    return slopes[INPUT].reshape(network.input_shape)


def _back(
    node: Node, slope: Array, values: Sequence[Array], reads: Sequence[int], shape: tuple[int, ...]
) -> list[Array]:
    operator = node.operator
    if isinstance(operator, Square):
        return [2 * values[reads[0] + 1] * slope]
    if isinstance(operator, Product):
        one, other = (values[tensor + 1] for tensor in reads)
        return [other * slope, one * slope]
    if isinstance(operator, Chebyshev):
        return [operator.slope(values[reads[0] + 1].reshape(shape)).reshape(-1) * slope]
    if isinstance(operator, Affine | AffineSum):
        maps = (operator.map,) if isinstance(operator, Affine) else operator.maps
        written = [linear.entries for linear in maps]
        return [
            np.bincount(e.cols, weights=e.values * slope[e.rows], minlength=values[tensor + 1].size).astype(np.float64)
            for e, tensor in zip(written, reads, strict=True)
        ]
    raise CompileError(f"{node.name}: no worst input is sought through a {type(operator).__name__}: use simulate()")

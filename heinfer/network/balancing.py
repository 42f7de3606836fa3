"""Balancing: the same network with every tensor near one, by powers of two, so that no layer drowns in noise.

A folded network is affine maps, squares and products, so a tensor may be kept as 2^k times itself: the map that makes
it is scaled, the maps that read it are scaled back, and of a product the exponents add up. What a series is made of
stays as it is, in [-2, 2], and the coefficients of the series are scaled. Powers of two are exact.
Without it a layer of tiny values would be noise at any scale that its ciphertext has room for, and one of huge values
would have no room. The exponent of the scores is left over; whoever decrypts takes it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import frexp

import numpy as np

from heinfer.network.ir import INPUT, Network, Node
from heinfer.network.joints import AffineSum, Product
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, Chebyshev, Square
from heinfer.network.pairs import Vector

_SMALLEST, _LARGEST = 0, 16
"""The largest |value| of a map's tensor is left as it is where it is at least 2^0, and its square less than 2^16.

Of what is multiplied more often than once, that power is."""
_TARGET = 3
"""Otherwise it becomes at least 2^2 and less than 2^3, or less: squares have room at every level."""
_SHARED = 0.5
"""Scores lose what they share where it takes this part of their range, or more."""
_AT_ONCE = 32  # inputs evaluated together


@dataclass(frozen=True, eq=False)
class Balanced:
    """A network as it is planned.

    Attributes:
        network: gives the scores of each output times 2^exponent, for a classification perhaps without what all of
            them share.
        exponents: of two, one for each output.
    """

    network: Network
    exponents: tuple[int, ...]


ALL = (slice(None),)
"""Of one output."""


def balance(
    folded: Network, calibration: Vector, outputs: Sequence[slice] = ALL, *, is_classification: bool
) -> Balanced:
    """Balance a folded network by the values that calibration inputs (batch, *input_shape) have in it.

    Args:
        outputs: where each is among all scores of an input; all become as large as the largest.
        is_classification: whether there is one output, of which only the label of the largest score counts.
    """
    folded, alike = _alike(folded, calibration, outputs)
    if is_classification:
        folded = _without_what_scores_share(folded, calibration)
    largest = _largest(folded, calibration)
    powers = _powers(folded)
    in_series = _read_by_series(folded)
    exponents = {INPUT: 0} | dict.fromkeys(in_series, 0)
    for position, (node, reads) in enumerate(zip(folded.nodes, folded.reads, strict=True)):
        if isinstance(node.operator, Square):
            exponents[position] = 2 * exponents[reads[0]]
        elif isinstance(node.operator, Product):
            exponents[position] = sum(exponents[i] for i in reads)
        elif position not in in_series:
            exponents[position] = _exponent(largest[position], powers[position])
    if not any(exponents.values()):
        return Balanced(folded, alike)
    nodes = tuple(
        replace(node, operator=_scaled(node, exponents[position], [exponents[i] for i in reads]))
        for position, (node, reads) in enumerate(zip(folded.nodes, folded.reads, strict=True))
    )
    return Balanced(replace(folded, nodes=nodes), tuple(n + exponents[len(nodes) - 1] for n in alike))


def _alike(folded: Network, calibration: Vector, outputs: Sequence[slice]) -> tuple[Network, tuple[int, ...]]:
    """The network with all outputs in the same power of two as the largest, and by which each was multiplied.

    They share ciphertexts, and so one noise: it would drown what is small beside another.
    """
    if len(outputs) == 1:
        return folded, (0,)
    scores = np.abs(_scores(folded, calibration)).max(axis=0)
    sizes = [float(scores[elements].max()) for elements in outputs]
    most = frexp(max(sizes))[1]
    exponents = tuple(most - frexp(size)[1] if size else 0 for size in sizes)
    if not any(exponents):
        return folded, exponents
    factors = np.ones(scores.size)
    for elements, exponent in zip(outputs, exponents, strict=True):
        factors[elements] = 2.0**exponent
    *before, last = folded.nodes
    times = LinearMap.diagonal(folded.output_shape, factors, np.zeros(factors.size))
    scaled = _operator(tuple(linear.then(times) for linear in _maps(last)))
    return replace(folded, nodes=(*before, replace(last, operator=scaled))), exponents


def _read_by_series(network: Network) -> set[int]:
    nodes = zip(network.nodes, network.reads, strict=True)
    return {reads[0] for node, reads in nodes if isinstance(node.operator, Chebyshev)}


def _powers(network: Network) -> dict[int, int]:
    """The power to which each tensor is raised before a map reads it, 2 at least: products count as squares."""
    found: dict[int, int] = {}
    for position in reversed(range(len(network.nodes))):
        if isinstance(network.nodes[position].operator, Square | Product):
            power = 2 * found.get(position, 1)
            for tensor in network.reads[position]:
                found[tensor] = max(found.get(tensor, 1), power)
    return {position: max(2, found.get(position, 1)) for position in range(len(network.nodes))}


def _exponent(largest: float, power: int) -> int:
    """Of the power of two that brings a tensor's largest |value| near one, where it is raised to a power."""
    room = _LARGEST // power
    if not largest or 2.0**_SMALLEST <= largest < 2.0**room:
        return 0
    return min(_TARGET, max(room, 1)) - frexp(largest)[1]


def _scaled(node: Node, after: int, before: Sequence[int]) -> Affine | AffineSum | Square | Product | Chebyshev:
    """The operator on tensors 2^before times as large, for a result 2^after times as large."""
    operator = node.operator
    if isinstance(operator, Square | Product):
        return operator
    if isinstance(operator, Chebyshev):
        return replace(operator, coefficients=np.ldexp(operator.coefficients, after))
    assert isinstance(operator, Affine | AffineSum)  # all there is in a folded network
    maps = (operator.map,) if isinstance(operator, Affine) else operator.maps
    scaled = tuple(linear.times_power_of_two(after - of, after) for linear, of in zip(maps, before, strict=True))
    return _operator(scaled)


def _largest(network: Network, calibration: Vector) -> list[float]:
    """The largest |value| of every node's tensor."""
    found = [0.0] * len(network.nodes)
    for position, value in _values(network, calibration):
        found[position] = max(found[position], float(np.abs(value).max()))
    return found


def _values(network: Network, calibration: Vector) -> Iterator[tuple[int, Vector]]:
    for first in range(0, len(calibration), _AT_ONCE):
        values = network.values(calibration[first : first + _AT_ONCE])
        yield from enumerate(islice(values, 1, None))


def _scores(network: Network, calibration: Vector) -> Vector:
    last = len(network.nodes) - 1
    return np.concatenate([v.reshape(len(v), -1) for position, v in _values(network, calibration) if position == last])


def _without_what_scores_share(network: Network, calibration: Vector) -> Network:
    """Take out of all scores alike what takes much of their range and says nothing of the label: nothing but a shift.

    That is a constant, and of a dense layer also what its scores share image by image.
    """
    *before, last = network.nodes
    scores = _scores(network, calibration)
    maps = _maps(last)
    if scores.shape[1] == 1:
        return network
    left, (first, *others) = scores, maps
    centred = scores - scores.mean(axis=1, keepdims=True)
    if np.ptp(centred) <= _SHARED * np.ptp(scores) and all(_has_every_row(linear) for linear in maps):
        left, (first, *others) = centred, tuple(_centred(linear) for linear in maps)
    if np.ptp(left) / 2 > _SHARED * np.abs(scores).max():
        return network
    shift = left.min() + np.ptp(left) / 2
    shifted = (first.with_bias_added(np.full(first.bias.size, -shift)), *others)
    return replace(network, nodes=(*before, replace(last, operator=_operator(shifted))))


def _maps(last: Node) -> tuple[LinearMap, ...]:
    """Of the node that makes the output."""
    operator = last.operator
    assert isinstance(operator, Affine | AffineSum)  # maps do in a folded network
    return (operator.map,) if isinstance(operator, Affine) else operator.maps


def _operator(maps: tuple[LinearMap, ...]) -> Affine | AffineSum:
    return Affine(maps[0]) if len(maps) == 1 else AffineSum(maps)


def _has_every_row(linear: LinearMap) -> bool:
    """Whether every column that has an entry has one in every row, by declared structure."""
    return set(np.unique(linear.readers).tolist()) <= {0, linear.bias.size}


def _centred(linear: LinearMap) -> LinearMap:
    """The map less the mean of its rows."""
    entries = linear.entries
    mean = np.bincount(entries.cols, weights=entries.values) / linear.bias.size
    values, bias = entries.values - mean[entries.cols], linear.bias - linear.bias.mean()
    return LinearMap.from_entries(linear.in_shape, linear.out_shape, entries.rows, entries.cols, values, bias)

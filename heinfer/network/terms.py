"""Sums of maps of named tensors: the algebra behind folding and merging.

Terms ((s, A), (t, B), ...) stand for A s + B t + ..., biases included; s and t are positions of nodes of a network.
Every tensor occurs once.
"""

from __future__ import annotations

from collections.abc import Iterable

from heinfer.network.joints import AffineSum
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine

Terms = tuple[tuple[int, LinearMap], ...]


def collected(terms: Iterable[tuple[int, LinearMap]]) -> Terms:
    """Terms in which the maps of one tensor are added up to one."""
    found: dict[int, LinearMap] = {}
    for source, linear in terms:
        found[source] = found[source].plus(linear) if source in found else linear
    return tuple(found.items())


def composed(first: Terms, after: LinearMap) -> Terms:
    """A map of a sum, as a sum."""
    biasless = after.without_bias() if len(first) > 1 else after
    return tuple((s, linear.then(biasless if i else after)) for i, (s, linear) in enumerate(first))


def substituted(terms: Terms, source: int, made_of: Terms) -> Terms:
    """Terms in which a tensor is replaced by what it is the sum of."""
    parts = (composed(made_of, linear) if s == source else ((s, linear),) for s, linear in terms)
    return collected(term for part in parts for term in part)


def operator_of(terms: Terms) -> Affine | AffineSum:
    """The operator that evaluates terms on their tensors, in order."""
    return Affine(terms[0][1]) if len(terms) == 1 else AffineSum(tuple(linear for _, linear in terms))


def terms_of(operator: Affine | AffineSum, inputs: tuple[int, ...]) -> Terms:
    """The terms of an operator that reads certain tensors; one that is read twice is collected."""
    maps = (operator.map,) if isinstance(operator, Affine) else operator.maps
    return collected(zip(inputs, maps, strict=True))

"""Folding: any network becomes affine maps and squares, nothing else.

A polynomial a x^2 + b x + c is a (x + b/2a)^2 + (c - b^2/4a): its shift joins the map before it,
its factor and constant the map after it, and what remains is a square, which costs one level.
Diagonal maps (batch normalisation) and reshapes join a neighbour. Two maps that both mix elements
(a pool and a convolution, the two halves of an FFConv) stay two: merging them is a question of cost.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from heinfer.network.ir import Network, Node
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import (
    Affine,
    ChannelAffine,
    Flatten,
    Linear,
    Polynomial,
    Square,
    per_channel,
)

_JOINS_NEIGHBOUR = (ChannelAffine, Flatten)


def fold(network: Network) -> Network:
    """Return an equal network of Affine and Square nodes that starts and ends with an Affine."""
    nodes = _as_maps_and_squares(network)
    for join in (_join_with_next, _join_with_previous):
        nodes = _merge(nodes, join)
    return Network(network.input_shape, tuple(Node(name, operator) for name, operator, _ in nodes))


_Item = tuple[str, Affine | Square, bool]  # the flag: joins a neighbour


def _as_maps_and_squares(network: Network) -> list[_Item]:
    items: list[_Item] = []
    shapes = (network.input_shape, *network.shapes)
    for node, shape in zip(network.nodes, shapes, strict=False):
        match node.operator:
            case Polynomial() as polynomial:
                items += _split(node.name, polynomial, shape)
            case Square() as square:
                items.append((node.name, square, False))
            case Linear() as linear:
                joins = isinstance(linear, _JOINS_NEIGHBOUR)
                items.append((node.name, Affine(linear.linear_map(shape)), joins))
            case other:
                raise TypeError(f"{node.name}: folding does not know {type(other).__name__}")
    return _with_affine_ends(items, network.input_shape, network.output_shape)


def _split(name: str, polynomial: Polynomial, shape: tuple[int, ...]) -> list[_Item]:
    a, b, c = (per_channel(v, shape) for v in (polynomial.a, polynomial.b, polynomial.c))
    before = LinearMap.diagonal(shape, np.ones(prod(shape)), b / (2 * a))
    after = LinearMap.diagonal(shape, a, c - b * b / (4 * a))
    return [(name, Affine(before), True), (name, Square(), False), (name, Affine(after), True)]


def _with_affine_ends(items: list[_Item], first: tuple[int, ...], last: tuple[int, ...]) -> list[_Item]:
    if not items or isinstance(items[0][1], Square):
        items = [("input", Affine(_identity(first)), True), *items]
    if isinstance(items[-1][1], Square):
        items = [*items, ("output", Affine(_identity(last)), True)]
    return items


def _identity(shape: tuple[int, ...]) -> LinearMap:
    return LinearMap.diagonal(shape, np.ones(prod(shape)), np.zeros(prod(shape)))


_Join = Callable[[_Item, _Item], _Item | None]


def _merge(items: list[_Item], join: _Join) -> list[_Item]:
    merged: list[_Item] = []
    for item in items:
        joined = join(merged[-1], item) if merged else None
        if joined is None:
            merged.append(item)
        else:
            merged[-1] = joined
    return merged


def _join_with_previous(previous: _Item, item: _Item) -> _Item | None:
    """A map that joins a neighbour goes into the map before it."""
    return _joined(previous, item, previous[0]) if item[2] else None


def _join_with_next(previous: _Item, item: _Item) -> _Item | None:
    """A map that joins a neighbour goes into the map after it, unless that is the shift of an activation."""
    if not previous[2]:
        return None
    return _joined(previous, item, item[0] if not item[2] else previous[0])


def _joined(previous: _Item, item: _Item, name: str) -> _Item | None:
    first, second = previous[1], item[1]
    if isinstance(first, Square) or isinstance(second, Square):
        return None
    return name, Affine(first.map.then(second.map)), previous[2] and item[2]

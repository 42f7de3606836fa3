"""Products and sums of stencils, in closed form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from heinfer.network.join import Index, distinct
from heinfer.network.pairs import Axis, Matrix, Pairs, Vector
from heinfer.network.stencil import Stencil, require_room

Relations = tuple[Pairs, Pairs, Pairs]

_MOST_WAYS = 10_000_000
"""Through the middle of a product that are looked at one by one when its entries are counted."""

# Products


def product(first: Stencil, after: Stencil) -> Stencil:
    """``after`` applied to the result of ``first``; its entries are the product of structures. It may have none."""
    start = first.first
    first, after = _meeting(replace(first, first=0), after)
    y, ways_y = first.y.then(after.y)
    x, ways_x = first.x.then(after.x)
    channels = first.channels.then(after.channels)
    require_room(y.taps * x.taps * channels.size, "weights")
    weights = np.zeros((y.taps, x.taps, channels.size))
    along_x = ways_x.by_factors()
    for (second_y, first_y), ys in ways_y.by_factors().items():
        for (second_x, first_x), xs in along_x.items():
            values = _product(first, after, channels, (first_y, first_x), (second_y, second_x))
            for tap in ys:
                for across in xs:
                    weights[tap, across] += values
    return Stencil(channels, y, x, weights, start)


def product_size(firsts: Sequence[Stencil], afters: Sequence[Stencil]) -> int:
    """How many entries the product of two sums of stencils has: counted along each axis, none is written out.

    It is more than that where too many ways lead through a middle without structure, or where products that are added
    up are between planes of different shapes.
    """
    alike: defaultdict[object, list[Relations]] = defaultdict(list)
    bound = 0
    for after in afters:
        for first in firsts:
            relations = _composed(first, after)
            if isinstance(relations, int):
                bound += relations
            else:
                alike[first.first, *((pairs.outputs, pairs.inputs) for pairs in relations)].append(relations)
    return bound + sum(map(_united_size, alike.values()))


def _composed(first: Stencil, after: Stencil) -> Relations | int:
    """The relations of a product; a bound on its entries where too many ways lead through its middle."""
    first = replace(first, first=0)
    met = _meeting_in_structure(first, after)
    if met is None:
        ways = int((first.reads[after.first : after.first + after.inputs] * after.readers).sum())
        most = max(ways, first.size, after.size)
        if most > _MOST_WAYS:
            return most
        met = first.explicit(first.inputs), after.explicit(first.outputs)
    one, two = met
    y, x = one.y.pairs.then(two.y.pairs), one.x.pairs.then(two.x.pairs)
    if one.channels.ways(two.channels) > _MOST_WAYS:
        return one.channels.most_then(two.channels) * y.size * x.size
    return one.channels.then(two.channels), y, x


def _united_size(products: list[Relations]) -> int:
    """How many entries there are in any of some products between the same planes.

    Pairs of an axis that the same products have are one kind; entries are counted kind by kind.
    """
    if len(products) == 1:
        return prod(pairs.size for pairs in products[0])
    kinds = [_kinds([relations[axis] for relations in products]) for axis in range(3)]
    (c, of_c), (y, of_y), (x, of_x) = kinds
    present = (c[:, None, None, :] & y[:, None, :] & x).any(axis=-1)
    return int((present * (of_c[:, None, None] * of_y[:, None] * of_x)).sum())


def _kinds(relations: list[Pairs]) -> tuple[NDArray[np.bool_], Index]:
    """Which relations have the pairs of every kind (kinds, relations), and how many pairs these are."""
    keys = distinct(np.concatenate([pairs.keys for pairs in relations]))
    has = np.stack([np.isin(keys, pairs.keys, assume_unique=True) for pairs in relations], axis=1)
    return np.unique(has, axis=0, return_counts=True)


def _product(first: Stencil, after: Stencil, channels: Pairs, tap: tuple[int, int], then: tuple[int, int]) -> Vector:
    """The product of a tap of either, at pairs of channels."""
    one: Vector = first.weights[tap]
    two: Vector = after.weights[then]
    if first.channels.is_identity:
        return two * one[after.channels.into]
    if after.channels.is_identity:
        return one * two[first.channels.out]
    found: Matrix = after.matrix(*then) @ first.matrix(*tap)
    if isinstance(found, np.ndarray):
        return found.reshape(-1)[channels.keys]
    found.sum_duplicates()  # sorts
    rows = np.repeat(np.arange(channels.outputs), np.diff(found.indptr))
    number = Pairs(channels.outputs, channels.inputs, rows, found.indices.astype(np.int64)).find(
        channels.out, channels.into
    )
    return np.append(found.data, 0.0)[number]  # the last of them, 0, is what is not found: zeros are not kept


def _meeting(first: Stencil, after: Stencil) -> tuple[Stencil, Stencil]:
    """Two stencils as they are where the planes of the one are those of the other; without structure if need be."""
    return _meeting_in_structure(first, after) or (first.explicit(first.inputs), after.explicit(first.outputs))


def _meeting_in_structure(first: Stencil, after: Stencil) -> tuple[Stencil, Stencil] | None:
    """The same; None where it takes entries that are written out."""
    viewed = after.with_input_planes(first.out_planes)
    if viewed:
        return first, viewed
    made = None if after.first else first.with_output_planes(after.in_planes)
    if made:
        return made, after
    return None


# Sums


def united(stencils: Iterable[Stencil], inputs: int) -> tuple[Stencil, ...]:
    """Stencils of the same sum of which no two have the same entry.

    Args:
        inputs: of the map that they make up.
    """
    found: list[Stencil] = []
    left = [stencil for stencil in stencils if stencil.size][::-1]
    while left:
        new = left.pop()
        for number, old in enumerate(found):
            parts = _added(old, new, inputs)
            if parts:
                del found[number]
                left += parts[::-1]  # each may have entries of those that are not yet looked at
                break
        else:
            found.append(new)
    return tuple(found)


def _added(old: Stencil, new: Stencil, inputs: int) -> list[Stencil]:
    """The sum of two as stencils without a common entry; none where they have none and are best as they are."""
    if not _share_inputs(old, new):
        return []
    if old.first != new.first or not all(a.is_like(b) for a, b in zip(old.relations, new.relations, strict=True)):
        viewed = new.with_input_planes(old.in_planes) if old.first == new.first == 0 else None
        if viewed and viewed.out_planes == old.out_planes:
            new = viewed
        else:
            old, new = old.explicit(inputs), new.explicit(inputs)
    if old.y.pairs.equals(new.y.pairs) and old.x.pairs.equals(new.x.pairs):
        return [_sum(old.channels.united(new.channels), old, new)]
    inside = [a.within(b) for a, b in zip(new.relations, old.relations, strict=True)]
    if all(mask.all() for mask in inside):
        return [_sum(old.channels, old, new)]
    if all(a.within(b).all() for a, b in zip(old.relations, new.relations, strict=True)):
        return [_sum(new.channels, new, old)]
    if not all(mask.any() for mask in inside):
        return []
    return [_sum(old.channels, old, new.kept(*inside)), *_outside(new, inside)]


def _share_inputs(one: Stencil, other: Stencil) -> bool:
    return max(one.first, other.first) < min(one.first + one.inputs, other.first + other.inputs)


def _outside(stencil: Stencil, inside: list[NDArray[np.bool_]]) -> Iterator[Stencil]:
    """The entries of a stencil but those that have all three pairs inside."""
    channels, y, x = inside
    every_y, every_x = np.ones(y.size, dtype=bool), np.ones(x.size, dtype=bool)
    for part in ((~channels, every_y, every_x), (channels, ~y, every_x), (channels, y, ~x)):
        if all(mask.any() for mask in part):
            yield stencil.kept(*part)


def _sum(channels: Pairs, large: Stencil, small: Stencil) -> Stencil:
    """The sum of a stencil and one along whose axes it has all pairs, between channels of either."""
    (y, of_y), (x, of_x) = _refined(large.y, small.y), _refined(large.x, small.x)
    require_room(y.taps * x.taps * channels.size, "weights")
    weights = np.zeros((y.taps, x.taps, channels.size))
    for part, ys, xs in ((large, of_y[0], of_x[0]), (small, of_y[1], of_x[1])):
        has_y, has_x = np.flatnonzero(ys >= 0), np.flatnonzero(xs >= 0)
        place = channels.find(part.channels.out, part.channels.into)
        weights[np.ix_(has_y, has_x, place)] += part.weights[ys[has_y][:, None], xs[has_x]]
    return Stencil(channels, y, x, weights, large.first)


def _refined(large: Axis, small: Axis) -> tuple[Axis, tuple[Index, Index]]:
    """The pairs of an axis by a tap for each that it has in either, and what each of these is in both; -1: nothing."""
    number = small.pairs.find(large.pairs.out, large.pairs.into)
    other = np.where(number >= 0, small.tap[number], -1)
    codes, tap = np.unique(large.tap * (small.taps + 1) + other + 1, return_inverse=True)
    of_large, of_small = np.divmod(codes, small.taps + 1)
    return Axis(large.pairs, tap, codes.size), (of_large, of_small - 1)

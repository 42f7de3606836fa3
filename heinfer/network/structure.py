"""The structure of a map that was written out entry by entry: which of its channels, rows and columns go together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from heinfer.network.join import Index, distinct, starts
from heinfer.network.linear_map import LinearMap, planes_of
from heinfer.network.pairs import Axis, Pairs, Vector
from heinfer.network.stencil import Stencil

_MOST_STENCILS = 64
"""Of a map that is taken apart: a shuffle of r x r pixels has r^2."""


def structured(linear: LinearMap) -> LinearMap:
    """The same map, as few stencils over its planes where it is that, and as it is where it is not.

    Only such a map is multiplied out, and counted, without writing out the entries of what it is multiplied with.
    """
    if linear.is_diagonal or not linear.size or _has_planes(linear):
        return linear
    out_planes, in_planes = planes_of(linear.out_shape), planes_of(linear.in_shape)
    entries = linear.entries
    if linear.inputs == linear.bias.size and np.array_equal(entries.rows, entries.cols):
        out_planes = in_planes  # the same elements in another shape
    out, into = (np.unravel_index(i, p) for i, p in ((entries.rows, out_planes), (entries.cols, in_planes)))
    channel, y, x = (o * n + i for o, n, i in zip(out, in_planes, into, strict=True))
    order = np.lexsort((x, y, channel))
    channel, y, x, values = channel[order], y[order], x[order], entries.values[order]
    begin = starts(channel)
    alike: dict[bytes, list[int]] = {}
    places = y * (out_planes[2] * in_planes[2]) + x
    for number, places_of_pair in enumerate(np.split(places, begin[1:])):
        alike.setdefault(places_of_pair.tobytes(), []).append(number)
        if len(alike) > _MOST_STENCILS:
            return linear
    end = np.append(begin[1:], channel.size)
    stencils = []
    for pairs in alike.values():
        first, last = begin[pairs[0]], end[pairs[0]]
        ys, xs = distinct(y[first:last]), distinct(x[first:last])
        if ys.size * xs.size != last - first:
            return linear
        weights = np.stack([values[begin[pair] : end[pair]] for pair in pairs]).reshape(-1, ys.size, xs.size)
        of_y, of_x = (_taps(weights, axis) for axis in (1, 2))
        stencils.append(
            Stencil(
                Pairs.of_keys(out_planes[0], in_planes[0], channel[begin[pairs]]),
                _axis(out_planes[1], in_planes[1], ys, of_y),
                _axis(out_planes[2], in_planes[2], xs, of_x),
                np.ascontiguousarray(weights[:, of_y[0]][:, :, of_x[0]].transpose(1, 2, 0)),
            )
        )
    return replace(linear, stencils=tuple(stencils))


def _has_planes(linear: LinearMap) -> bool:
    """Whether it says all there is to say: its tensors have no rows and columns, or its stencils have them."""
    planes = planes_of(linear.out_shape), planes_of(linear.in_shape)
    return planes[0][1:] == planes[1][1:] == (1, 1) or all(
        (s.out_planes, s.in_planes) == planes for s in linear.stencils
    )


def _taps(weights: Vector, axis: int) -> tuple[Index, Index]:
    """Of places along an axis of weights: the first of those with the same weights, and which of them each is."""
    along = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    _, first, tap = np.unique(along, axis=0, return_index=True, return_inverse=True)
    return first, tap.reshape(-1)


def _axis(outputs: int, inputs: int, keys: Index, taps: tuple[Index, Index]) -> Axis:
    return Axis(Pairs.of_keys(outputs, inputs, keys), taps[1], taps[0].size)

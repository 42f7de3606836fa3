"""Maps that act along the axes of a tensor: windows of a kernel in any number of dimensions, and resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from math import prod

import numpy as np

from heinfer.errors import ShapeError
from heinfer.network.join import Index
from heinfer.network.linear_map import LinearMap
from heinfer.network.pairs import Axis, Pairs, Vector
from heinfer.network.stencil import Stencil

Shape = tuple[int, ...]
Padding = Sequence[tuple[int, int]]


def convolution_map(
    shape: Shape,
    weight: Vector,
    bias: Vector,
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    groups: int,
) -> LinearMap:
    """The map of a convolution (cross-correlation, as in torch) of (channels, *spatial), in any number of dimensions.

    Args:
        weight: (c_out, c_in / groups, *kernel).
        padding: zeros before and after each spatial axis.
    """
    c_out, c_group, *kernel = weight.shape
    if len(shape) != len(kernel) + 1 or shape[0] != c_group * groups:
        raise ShapeError(f"a convolution of {c_group * groups} channels takes no inputs of shape {shape}")
    size = [
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, k, s, (before, after), d in zip(shape[1:], kernel, stride, padding, dilation, strict=True)
    ]
    if min(size) < 1:
        raise ShapeError(f"kernel {tuple(kernel)} is larger than the padded input {shape}")
    axes = [
        Axis.windows(n, m, k, s, before, d)
        for n, m, k, s, (before, _), d in zip(shape[1:], size, kernel, stride, padding, dilation, strict=True)
    ]
    outputs, inputs = (a.reshape(-1) for a in np.indices((c_out, c_group)))
    channels = Pairs(c_out, shape[0], outputs, inputs + outputs // (c_out // groups) * c_group)
    y, x = _two(axes)
    weights = weight.reshape(c_out * c_group, y.taps, x.taps).transpose(1, 2, 0)
    stencil = Stencil(channels, y, x, np.ascontiguousarray(weights))
    return LinearMap.of(shape, (c_out, *size), stencil, np.repeat(bias, prod(size)))


def transposed_convolution_map(
    shape: Shape,
    weight: Vector,
    bias: Vector,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> LinearMap:
    """The map of a transposed convolution: that of the convolution from its result to its input, read backwards.

    Args:
        weight: (c_in, c_out / groups, *kernel).
    """
    c_in, c_group, *kernel = weight.shape
    size = [
        (n - 1) * s - 2 * p + d * (k - 1) + more + 1
        for n, k, s, p, more, d in zip(shape[1:], kernel, stride, padding, output_padding, dilation, strict=True)
    ]
    out_shape = (c_group * groups, *size)
    back = convolution_map(out_shape, weight, np.zeros(c_in), stride, [(p, p) for p in padding], dilation, groups)
    if back.out_shape != shape:
        raise ShapeError(f"a transposed convolution of {c_in} channels takes no inputs of shape {shape}")
    stencils = tuple(stencil.transposed() for stencil in back.stencils)
    return LinearMap(shape, out_shape, stencils, np.repeat(bias, prod(size)))


def resampling_map(shape: Shape, matrices: Sequence[Vector]) -> LinearMap:
    """Every axis by a matrix of its own, (outputs, inputs): pools, means, sums and interpolation.

    An entry is present where it is nonzero, so matrices must follow from shapes alone.
    """
    channel, *spatial = matrices
    rows, cols = np.nonzero(channel)
    axes = [_axis(matrix) for matrix in spatial]
    y, x = _two([axis for axis, _ in axes])
    of_taps = [values for _, values in axes]
    of_y = of_taps[0] if of_taps else np.ones(1)
    of_x: Vector = np.ones(1)
    for values in of_taps[1:]:
        of_x = np.multiply.outer(of_x, values).reshape(-1)
    weights = of_y[:, None, None] * of_x[:, None] * channel[rows, cols]
    stencil = Stencil(Pairs(channel.shape[0], channel.shape[1], rows, cols), y, x, weights)
    out_shape = tuple(matrix.shape[0] for matrix in matrices)
    return LinearMap.of(shape, out_shape, stencil, np.zeros(prod(out_shape)))


def _axis(matrix: Vector) -> tuple[Axis, Vector]:
    """The axis of a matrix, entries of one value by one tap; and the values of taps."""
    rows, cols = np.nonzero(matrix)
    values, tap = np.unique(matrix[rows, cols], return_inverse=True)
    return Axis(Pairs(matrix.shape[0], matrix.shape[1], rows, cols), tap.astype(np.int64), max(values.size, 1)), (
        values if values.size else np.zeros(1)
    )


def _two(axes: Sequence[Axis]) -> tuple[Axis, Axis]:
    """The axes of planes: all after the first are one."""
    one = Axis.one_to_one(1)
    return axes[0] if axes else one, reduce(_kron, axes[1:], one)


def _kron(outer: Axis, inner: Axis) -> Axis:
    """Both axes as one, the places of the inner one next to each other."""
    if outer.pairs.outputs == outer.pairs.inputs == outer.taps == 1 and outer.pairs.size:
        return inner
    a, b = (i.reshape(-1) for i in np.indices((outer.pairs.size, inner.pairs.size)))
    out = outer.pairs.out[a] * inner.pairs.outputs + inner.pairs.out[b]
    into = outer.pairs.into[a] * inner.pairs.inputs + inner.pairs.into[b]
    tap = outer.tap[a] * inner.taps + inner.tap[b]
    order = np.lexsort((into, out))
    sizes = outer.pairs.outputs * inner.pairs.outputs, outer.pairs.inputs * inner.pairs.inputs
    return Axis(Pairs(*sizes, out[order], into[order]), tap[order], outer.taps * inner.taps)


def selection_map(in_shape: Shape, out_shape: Shape, source: Index, scale: Vector, shift: Vector) -> LinearMap:
    """Every output is a factor times one input, or nothing, and a constant.

    Args:
        source: (prod(out_shape),) flat place of the input that each output reads, -1 for none.
        scale, shift: (prod(out_shape),).
    """
    if source.size == prod(in_shape) and np.array_equal(source, np.arange(source.size)):
        return replace(LinearMap.diagonal(in_shape, scale, shift), out_shape=out_shape)
    stencil = _separable(in_shape, out_shape, source, scale)
    if stencil is None:
        rows = np.flatnonzero(source >= 0)
        return LinearMap.from_entries(in_shape, out_shape, rows, source[rows], scale[rows], shift)
    return LinearMap.of(in_shape, out_shape, stencil, shift)


def planes(shape: Shape) -> tuple[int, int, int]:
    """A tensor as planes, of one element each where it has no further axes; a number is one plane of one."""
    return (shape[0] if shape else 1), (shape[1] if len(shape) > 1 else 1), prod(shape[2:])


def _separable(in_shape: Shape, out_shape: Shape, source: Index, scale: Vector) -> Stencil | None:
    """The selection as one along each axis, where it is one."""
    read, made = planes(in_shape), planes(out_shape)
    present = (source >= 0).reshape(made)
    there = [np.flatnonzero(present.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    grid = np.ix_(*there)
    if not present.any() or not present[grid].all():
        return None
    places = np.unravel_index(source.reshape(made)[grid], read)
    along = [places[0][:, :1, :1], places[1][:1, :, :1], places[2][:1, :1, :]]
    if any((place != one).any() for place, one in zip(places, along, strict=True)):
        return None
    into = [one.reshape(-1) for one in along]
    relations = [Pairs(made[i], read[i], there[i], into[i]) for i in range(3)]
    weights = scale.reshape(made)[grid].transpose(1, 2, 0)
    if (weights == weights[:1, :1]).all():
        y, x = (Axis(pairs, np.zeros(pairs.size, dtype=np.int64), 1) for pairs in relations[1:])
        return Stencil(relations[0], y, x, np.ascontiguousarray(weights[:1, :1]))
    y, x = (Axis(pairs, np.arange(pairs.size), pairs.size) for pairs in relations[1:])
    return Stencil(relations[0], y, x, np.ascontiguousarray(weights))

"""A kernel over planes: the structure that convolutions, pools, dense layers, normalisations and selections share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.errors import MapTooLargeError
from heinfer.network.join import Index, starts
from heinfer.network.pairs import Axis, Matrix, Pairs, Vector

Planes = tuple[int, int, int]

MOST_NUMBERS = 50_000_000
"""Weights that a stencil may have, and entries that may be written out one by one."""


@dataclass(frozen=True, eq=False)
class Stencil:
    """W[(o, y, x), (i, v, u)] = weights[tap of (y, v), tap of (x, u), pair (o, i)], where all three pairs exist.

    An entry is present where its three pairs are, whatever its weight.

    Attributes:
        channels: which planes read which.
        y, x: which rows and columns of a plane read which, and by which tap.
        weights: (taps of y, taps of x, pairs of channels).
        first: the input element at which its planes begin.
    """

    channels: Pairs
    y: Axis
    x: Axis
    weights: Vector
    first: int = 0

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{self.in_planes} to {self.out_planes}: {self.weights.size} weights"

    @classmethod
    def of_entries(cls, pairs: Pairs, values: Vector) -> Stencil:
        """Entries without any structure: every element is a plane of one."""
        return cls(pairs, Axis.one_to_one(1), Axis.one_to_one(1), values.reshape(1, 1, -1))

    @classmethod
    def diagonal(cls, planes: Planes, scale: Vector) -> Stencil:
        """Every element by itself; by one tap where all elements of a plane have one scale."""
        weights = scale.reshape(planes).transpose(1, 2, 0)
        if (weights == weights[:1, :1]).all():
            y, x = (Axis.one_to_one(n) for n in planes[1:])
            return cls(Pairs.one_to_one(planes[0]), y, x, weights[:1, :1])
        y, x = (Axis.each(n) for n in planes[1:])
        return cls(Pairs.one_to_one(planes[0]), y, x, weights)

    @property
    def out_planes(self) -> Planes:
        return self.channels.outputs, self.y.pairs.outputs, self.x.pairs.outputs

    @property
    def in_planes(self) -> Planes:
        return self.channels.inputs, self.y.pairs.inputs, self.x.pairs.inputs

    @property
    def outputs(self) -> int:
        return prod(self.out_planes)

    @property
    def inputs(self) -> int:
        return prod(self.in_planes)

    @property
    def size(self) -> int:
        """How many entries are present."""
        return prod(pairs.size for pairs in self.relations)

    @property
    def relations(self) -> tuple[Pairs, Pairs, Pairs]:
        return self.channels, self.y.pairs, self.x.pairs

    @property
    def is_on_diagonal(self) -> bool:
        return self.first == 0 and all(pairs.is_on_diagonal for pairs in self.relations)

    @cached_property
    def reads(self) -> Index:
        """How many inputs every output reads: shape (outputs,)."""
        return _outer(*(pairs.reads for pairs in self.relations))

    @cached_property
    def readers(self) -> Index:
        """How many outputs read every input, from ``first`` on: shape (inputs,)."""
        return _outer(*(pairs.readers for pairs in self.relations))

    # Entries

    @cached_property
    def _of_output(self) -> Index:
        return np.stack(np.unravel_index(np.arange(self.outputs), self.out_planes))

    @cached_property
    def _of_input(self) -> Index:
        return np.stack(np.unravel_index(np.arange(self.inputs), self.in_planes))

    def _find(self, rows: Index, cols: Index) -> tuple[NDArray[np.bool_], tuple[Index, Index, Index]]:
        """Whether entries are present, and the numbers of their pairs (anything where they are not)."""
        into = cols - self.first
        present = (into >= 0) & (into < self.inputs)
        into = np.where(present, into, 0)
        found = []
        for pairs, out, read in zip(self.relations, self._of_output, self._of_input, strict=True):
            number = pairs.find(out[rows], read[into])
            present &= number >= 0
            found.append(number)
        return present, (found[0], found[1], found[2])

    def ranks(self, rows: Index, cols: Index) -> Index:
        """Which of the entries of its row each is, -1 for one that is not present."""
        present, numbers = self._find(rows, cols)
        rank = np.zeros(rows.shape, dtype=np.int64)
        for pairs, out, number in zip(self.relations, self._of_output, numbers, strict=True):
            place = out[rows]
            rank = rank * pairs.reads[place] + number - pairs.first[place]
        return np.where(present, rank, -1)

    def values(self, rows: Index, cols: Index) -> Vector:
        """Values of entries, 0 for those that are not present."""
        present, (channel, y, x) = self._find(rows, cols)
        return np.where(present, self.weights[self.y.tap[y], self.x.tap[x], channel], 0.0)

    def coordinates(self) -> tuple[Index, Index, Vector]:
        """Rows, columns and values of all entries, in no order; MapTooLargeError when they are too many."""
        require_room(self.size, "entries to write out one by one")
        c, y, x = np.ix_(*(np.arange(pairs.size) for pairs in self.relations))
        channels, ys, xs = self.relations
        rows = (channels.out[c] * ys.outputs + ys.out[y]) * xs.outputs + xs.out[x]
        cols = (channels.into[c] * ys.inputs + ys.into[y]) * xs.inputs + xs.into[x] + self.first
        return rows.reshape(-1), cols.reshape(-1), self.weights[self.y.tap[y], self.x.tap[x], c].reshape(-1)

    # Values

    def matrix(self, y: int, x: int) -> Matrix:
        """The weights of a tap of each axis, between channels."""
        return self.channels.matrix(self.weights[y, x])

    def __call__(self, flat: Vector) -> Vector:
        """Apply to flattened tensors (batch, elements): (batch, outputs)."""
        batch = len(flat)
        planes = flat[:, self.first : self.first + self.inputs].T.reshape(*self.in_planes, batch)
        result = np.zeros((*self.out_planes, batch))
        for y in range(self.y.taps):
            rows, of_rows = _read(planes, self.y, y, axis=1)
            for x in range(self.x.taps):
                columns, read = _read(of_rows, self.x, x, axis=2)
                if read.size:
                    product = self.matrix(y, x) @ read.reshape(len(planes), -1)
                    result[:, rows[:, None], columns] += product.reshape(-1, *read.shape[1:])
        return result.reshape(self.outputs, batch).T

    # The same in other planes

    def kept(self, channels: NDArray[np.bool_], y: NDArray[np.bool_], x: NDArray[np.bool_]) -> Stencil:
        """The entries of some of the pairs."""
        (of_y, ys), (of_x, xs) = self.y.kept(y), self.x.kept(x)
        weights = self.weights[np.ix_(ys, xs, np.flatnonzero(channels))]
        return replace(self, channels=self.channels.kept(channels), y=of_y, x=of_x, weights=weights)

    def transposed(self) -> Stencil:
        """The entries with rows and columns exchanged; ``first`` is 0."""
        channels, order = self.channels.transposed()
        return Stencil(channels, self.y.transposed(), self.x.transposed(), self.weights[:, :, order])

    def explicit(self, inputs: int) -> Stencil:
        """As entries without structure, of so many inputs; MapTooLargeError when they are too many."""
        if self.out_planes[1:] == self.in_planes[1:] == (1, 1) and self.inputs == inputs:
            return self
        rows, cols, values = self.coordinates()
        keys = rows * inputs + cols
        order = np.argsort(keys)
        return Stencil.of_entries(Pairs.of_keys(self.outputs, inputs, keys[order]), values[order])

    def with_input_planes(self, planes: Planes) -> Stencil | None:
        """The same of inputs that are other planes; None where it has no such form."""
        if planes == self.in_planes and not self.first:
            return self
        if self.in_planes[1:] != (1, 1) or self.first or prod(planes) != self.inputs:
            return None
        if self.channels.is_identity and self.out_planes[1:] == (1, 1):
            return Stencil.diagonal(planes, self.weights.reshape(-1))
        plane = planes[1] * planes[2]
        keys, counts = np.unique(self.channels.out * planes[0] + self.channels.into // plane, return_counts=True)
        if (counts != plane).any():
            return None
        weights = self.weights.reshape(self.y.taps, self.x.taps, keys.size, *planes[1:]).transpose(0, 3, 1, 4, 2)
        y, x = (_spread(axis, places) for axis, places in zip((self.y, self.x), planes[1:], strict=True))
        channels = Pairs.of_keys(self.channels.outputs, planes[0], keys)
        return Stencil(channels, y, x, weights.reshape(y.taps, x.taps, keys.size))

    def with_output_planes(self, planes: Planes) -> Stencil | None:
        if self.first:
            return None
        found = self.transposed().with_input_planes(planes)
        return found and found.transposed()


def require_room(numbers: int, what: str) -> None:
    if numbers > MOST_NUMBERS:
        raise MapTooLargeError(
            f"a map has no form that is smaller than {numbers} {what}, and {MOST_NUMBERS} is the most: scale channels "
            "instead of elements, and keep layers apart with an activation between them"
        )


def _outer(channels: Index, y: Index, x: Index) -> Index:
    return (channels[:, None, None] * y[:, None] * x).reshape(-1)


def _spread(axis: Axis, places: int) -> Axis:
    """An axis of one input as one of several, each with a tap of its own."""
    out = np.repeat(axis.pairs.out, places)
    into = np.tile(np.arange(places), axis.pairs.size)
    tap = np.repeat(axis.tap, places) * places + into
    return Axis(Pairs(axis.pairs.outputs, places, out, into), tap, axis.taps * places)


def _read(planes: Vector, along: Axis, tap: int, *, axis: int) -> tuple[Index, Vector]:
    """The places of outputs that a tap has pairs for, and the sum of what it reads for each of them."""
    pairs = np.flatnonzero(along.tap == tap)
    out, read = along.pairs.out[pairs], planes.take(along.pairs.into[pairs], axis)
    first = starts(out)
    return out[first], np.add.reduceat(read, first, axis) if first.size < out.size else read

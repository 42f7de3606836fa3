"""An affine map between tensors: a matrix that is known by its structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np

from heinfer.brief import brief_repr
from heinfer.errors import ShapeError
from heinfer.network.join import Index
from heinfer.network.pairs import Pairs, Vector
from heinfer.network.stencil import Planes, Stencil
from heinfer.network.stencil_algebra import product, product_size, united


@dataclass(frozen=True, eq=False)
class Entries:
    """The matrix of a map written out: coordinates sorted by (row, column), without duplicates."""

    rows: Index
    cols: Index
    values: Vector

    __repr__ = brief_repr


@dataclass(frozen=True, eq=False)
class LinearMap:
    """y = W x + bias on flattened (row-major) tensors.

    An entry of W that is present is part of the declared structure, even when its value happens to be zero, so that
    plans and counts never depend on trained values.

    Attributes:
        in_shape, out_shape: tensor shapes without a batch axis.
        stencils: what W is the sum of; no two have the same entry.
        bias: shape (prod(out_shape),).
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    stencils: tuple[Stencil, ...]
    bias: Vector

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{self.in_shape} to {self.out_shape}: {self.size} entries"

    @classmethod
    def of(cls, in_shape: tuple[int, ...], out_shape: tuple[int, ...], stencil: Stencil, bias: Vector) -> LinearMap:
        """The map of one stencil, which may be without entries."""
        return cls(in_shape, out_shape, (stencil,) if stencil.size else (), bias)

    @classmethod
    def from_entries(
        cls,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        rows: Index,
        cols: Index,
        values: Vector,
        bias: Vector | None = None,
    ) -> LinearMap:
        """A map without structure; entries at the same coordinates are added up."""
        keys, inverse = np.unique(rows.astype(np.int64) * prod(in_shape) + cols, return_inverse=True)
        summed = np.bincount(inverse, weights=values, minlength=keys.size).astype(np.float64)
        stencil = Stencil.of_entries(Pairs.of_keys(prod(out_shape), prod(in_shape), keys), summed)
        return cls.of(in_shape, out_shape, stencil, np.zeros(prod(out_shape)) if bias is None else np.asarray(bias))

    @classmethod
    def diagonal(cls, shape: tuple[int, ...], scale: Vector, shift: Vector) -> LinearMap:
        """y_i = scale_i x_i + shift_i."""
        return cls.of(shape, shape, Stencil.diagonal(planes_of(shape), scale), np.asarray(shift, dtype=np.float64))

    @property
    def inputs(self) -> int:
        return prod(self.in_shape)

    @property
    def size(self) -> int:
        """How many entries are present."""
        return sum(stencil.size for stencil in self.stencils)

    @property
    def is_diagonal(self) -> bool:
        """Whether every element is made of that at its own place, and of no other, by declared structure."""
        if self.in_shape != self.out_shape or self.size != self.inputs:
            return False
        return all(stencil.is_on_diagonal for stencil in self.stencils)

    @property
    def only_moves(self) -> bool:
        """Whether no element is made of more than one: a permutation, selection, padding, copy, scale or shift."""
        return bool(self.reads.max(initial=0) <= 1)

    # Entries

    @cached_property
    def reads(self) -> Index:
        """How many entries every row has."""
        return sum((stencil.reads for stencil in self.stencils), np.zeros(self.bias.size, dtype=np.int64))

    @cached_property
    def readers(self) -> Index:
        """How many entries every column has."""
        found = np.zeros(self.inputs, dtype=np.int64)
        for stencil in self.stencils:
            found[stencil.first : stencil.first + stencil.inputs] += stencil.readers
        return found

    def ranks(self, rows: Index, cols: Index) -> Index:
        """Which of the entries of its row each is, from 0; -1 for one that is not present."""
        found, before = np.full(rows.shape, -1, dtype=np.int64), np.zeros(rows.shape, dtype=np.int64)
        for stencil in self.stencils:
            rank = stencil.ranks(rows, cols)
            found = np.where(rank >= 0, before + rank, found)
            before += stencil.reads[rows]
        return found

    def values(self, rows: Index, cols: Index) -> Vector:
        """Values of entries, 0 for those that are not present."""
        return sum((stencil.values(rows, cols) for stencil in self.stencils), np.zeros(rows.shape))

    @cached_property
    def entries(self) -> Entries:
        """All of them; MapTooLargeError when they are too many."""
        parts = [stencil.coordinates() for stencil in self.stencils]
        empty = np.zeros(0, dtype=np.int64)
        rows, cols = (np.concatenate([empty, *(part[i] for part in parts)]) for i in (0, 1))
        values = np.concatenate([np.zeros(0), *(part[2] for part in parts)])
        order = np.argsort(rows * self.inputs + cols)
        return Entries(rows[order], cols[order], values[order])

    def along(self, axis: int) -> tuple[Index, Index]:
        """Places of outputs along one axis of their planes, with the places that they read: distinct pairs, sorted."""
        outputs, inputs = self.out_shape[axis + 1], self.in_shape[axis + 1]
        keys = [np.zeros(0, dtype=np.int64)]
        for stencil in self.stencils:
            if (stencil.in_planes, stencil.out_planes) == (self.in_shape, self.out_shape):
                keys.append(stencil.relations[axis + 1].keys)
            else:
                rows, cols, _ = stencil.coordinates()
                inner = (self.out_shape[2], self.in_shape[2]) if axis == 0 else (1, 1)
                keys.append(np.unique(rows // inner[0] % outputs * inputs + cols // inner[1] % inputs))
        output, read = np.divmod(np.unique(np.concatenate(keys)), inputs)
        return output, read

    # Values

    def __call__(self, x: Vector) -> Vector:
        """Apply to tensors of shape (batch, *in_shape)."""
        return self._linear(x.reshape(x.shape[0], -1)).reshape(-1, *self.out_shape) + self.bias.reshape(self.out_shape)

    def _linear(self, flat: Vector) -> Vector:
        return sum((stencil(flat) for stencil in self.stencils), np.zeros((len(flat), self.bias.size)))

    def then(self, after: LinearMap) -> LinearMap:
        """Return ``after`` applied to the result of this map, as one map; structure is the product of structures."""
        if after.inputs != self.bias.size:
            raise ShapeError(f"a map to {self.out_shape} cannot be followed by one from {after.in_shape}")
        bias = after._linear(self.bias[None])[0] + after.bias
        products = (product(first, second) for second in after.stencils for first in self.stencils)
        return LinearMap(self.in_shape, after.out_shape, united(products, self.inputs), bias)

    def size_then(self, after: LinearMap) -> int:
        """How many entries that map has, before it is made; a bound where counting them takes long."""
        return product_size(self.stencils, after.stencils)

    def plus(self, other: LinearMap) -> LinearMap:
        """x -> this map of x + the other map of x; structure is the union of structures."""
        if (other.inputs, other.bias.size) != (self.inputs, self.bias.size):
            shapes = f"{self.in_shape} to {self.out_shape} and {other.in_shape} to {other.out_shape}"
            raise ShapeError(f"maps of other sizes do not add: {shapes}")
        stencils = united((*self.stencils, *other.stencils), self.inputs)
        return replace(self, stencils=stencils, bias=self.bias + other.bias)

    @classmethod
    def side_by_side(cls, maps: Sequence[LinearMap]) -> LinearMap:
        """(W1 | W2 | ...): a sum of maps of several tensors, as one map of all their elements, one after the other."""
        first = np.cumsum([0, *(linear.inputs for linear in maps)])
        stencils = tuple(
            replace(stencil, first=stencil.first + int(offset))
            for linear, offset in zip(maps, first, strict=False)
            for stencil in linear.stencils
        )
        bias = np.sum([linear.bias for linear in maps], axis=0)
        return cls((int(first[-1]),), maps[0].out_shape, stencils, bias)

    def with_bias_added(self, bias: Vector) -> LinearMap:
        return replace(self, bias=self.bias + bias.reshape(-1))

    def without_bias(self) -> LinearMap:
        return replace(self, bias=np.zeros(self.bias.size))

    def times_power_of_two(self, exponent: int, of_bias: int) -> LinearMap:
        """2^exponent W x + 2^of_bias bias."""
        stencils = tuple(replace(s, weights=np.ldexp(s.weights, exponent)) for s in self.stencils)
        return replace(self, stencils=stencils, bias=np.ldexp(self.bias, of_bias))


def planes_of(shape: tuple[int, ...]) -> Planes:
    """A tensor as planes: of one element each where it has no further axes."""
    height = shape[1] if len(shape) > 1 else 1
    return shape[0], height, prod(shape[2:])

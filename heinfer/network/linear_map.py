"""An affine map between tensors as a sparse matrix with declared structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from heinfer.brief import brief_repr
from heinfer.errors import ShapeError

Vector = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """y = W x + bias on flattened (row-major) tensors.

    W is kept as coordinates: an entry that is present is part of the declared structure, even when
    its value happens to be zero, so that plans and counts never depend on trained values.

    Attributes:
        in_shape, out_shape: tensor shapes without a batch axis.
        rows, cols, values: coordinates of W, sorted by (row, column), without duplicates.
        bias: shape (prod(out_shape),).
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    rows: Index
    cols: Index
    values: Vector
    bias: Vector

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{self.in_shape} to {self.out_shape}: {len(self.values)} entries"

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
        """Sort the entries; entries at the same coordinates are added up."""
        keys = rows.astype(np.int64) * prod(in_shape) + cols
        unique, inverse = np.unique(keys, return_inverse=True)
        summed = np.bincount(inverse, weights=values, minlength=unique.size)
        return cls(
            in_shape,
            out_shape,
            unique // prod(in_shape),
            unique % prod(in_shape),
            summed.astype(np.float64),
            np.zeros(prod(out_shape)) if bias is None else np.asarray(bias, dtype=np.float64),
        )

    @classmethod
    def diagonal(cls, shape: tuple[int, ...], scale: Vector, shift: Vector) -> LinearMap:
        """y_i = scale_i x_i + shift_i."""
        index = np.arange(prod(shape))
        return cls(shape, shape, index, index, np.asarray(scale, dtype=np.float64), np.asarray(shift, dtype=np.float64))

    @property
    def is_diagonal(self) -> bool:
        """Whether every element is made of that at its own place, and of no other, by declared structure."""
        if self.in_shape != self.out_shape or self.rows.size != prod(self.in_shape):
            return False
        return bool((self.rows == self.cols).all())

    @cached_property
    def matrix(self) -> csr_array:
        return csr_array((self.values, (self.rows, self.cols)), shape=(prod(self.out_shape), prod(self.in_shape)))

    @cached_property
    def keys(self) -> Index:
        """row * columns + column of every entry, ascending: a search index."""
        return self.rows * prod(self.in_shape) + self.cols

    def __call__(self, x: Vector) -> Vector:
        """Apply to tensors of shape (batch, *in_shape)."""
        flat = x.reshape(x.shape[0], -1)
        return (self.matrix @ flat.T).T.reshape(x.shape[0], *self.out_shape) + self.bias.reshape(self.out_shape)

    def then(self, after: LinearMap) -> LinearMap:
        """Return ``after`` applied to the result of this map, as one map; structure is the product of structures."""
        if prod(after.in_shape) != prod(self.out_shape):
            raise ShapeError(f"a map to {self.out_shape} cannot be followed by one from {after.in_shape}")
        bias = after.matrix @ self.bias + after.bias
        if self.is_diagonal:
            return LinearMap(
                self.in_shape, after.out_shape, after.rows, after.cols, after.values * self.values[after.cols], bias
            )
        if after.is_diagonal:
            return LinearMap(
                self.in_shape, after.out_shape, self.rows, self.cols, self.values * after.values[self.rows], bias
            )
        pattern = (_ones(after) @ _ones(self)).tocoo()  # positive entries cannot cancel, values can
        rows, cols = np.asarray(pattern.row, dtype=np.int64), np.asarray(pattern.col, dtype=np.int64)
        product = (after.matrix @ self.matrix).tocsr()
        product.sum_duplicates()  # sorts: a value is then found by bisection of its row
        values = np.asarray(product[rows, cols], dtype=np.float64).reshape(-1) if rows.size else np.zeros(0)
        return LinearMap.from_entries(self.in_shape, after.out_shape, rows, cols, values, bias)

    def plus(self, other: LinearMap) -> LinearMap:
        """x -> this map of x + the other map of x; structure is the union of structures."""
        if (prod(other.in_shape), prod(other.out_shape)) != (prod(self.in_shape), prod(self.out_shape)):
            shapes = f"{self.in_shape} to {self.out_shape} and {other.in_shape} to {other.out_shape}"
            raise ShapeError(f"maps of other sizes do not add: {shapes}")
        parts = [(self.rows, other.rows), (self.cols, other.cols)]
        rows, cols = (np.concatenate(part) for part in parts)
        values = np.concatenate([self.values, other.values])
        return LinearMap.from_entries(self.in_shape, self.out_shape, rows, cols, values, self.bias + other.bias)

    @classmethod
    def side_by_side(cls, maps: Sequence[LinearMap]) -> LinearMap:
        """(W1 | W2 | ...): a sum of maps of several tensors, as one map of all their elements, one after the other."""
        sizes = [prod(linear.in_shape) for linear in maps]
        first = np.cumsum([0, *sizes])
        cols = np.concatenate([linear.cols + offset for linear, offset in zip(maps, first, strict=False)])
        rows = np.concatenate([linear.rows for linear in maps])
        values = np.concatenate([linear.values for linear in maps])
        bias = np.sum([linear.bias for linear in maps], axis=0)
        return cls.from_entries((sum(sizes),), maps[0].out_shape, rows, cols, values, bias)

    def with_bias_added(self, bias: Vector) -> LinearMap:
        return LinearMap(self.in_shape, self.out_shape, self.rows, self.cols, self.values, self.bias + bias.reshape(-1))

    def without_bias(self) -> LinearMap:
        return LinearMap(self.in_shape, self.out_shape, self.rows, self.cols, self.values, np.zeros(self.bias.size))

    def with_rows_scaled(self, scale: Vector) -> LinearMap:
        """diag(scale) after this map, bias included."""
        flat = scale.reshape(-1)
        return LinearMap(
            self.in_shape, self.out_shape, self.rows, self.cols, self.values * flat[self.rows], self.bias * flat
        )

    def with_columns_scaled(self, scale: Vector) -> LinearMap:
        """This map after diag(scale)."""
        values = self.values * scale.reshape(-1)[self.cols]
        return LinearMap(self.in_shape, self.out_shape, self.rows, self.cols, values, self.bias)


def _ones(linear: LinearMap) -> csr_array:
    ones = np.ones(linear.rows.size)
    return csr_array((ones, (linear.rows, linear.cols)), shape=(prod(linear.out_shape), prod(linear.in_shape)))

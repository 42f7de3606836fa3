"""Which outputs read which inputs along one axis of planes: their channels, their rows or their columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from heinfer.brief import brief_repr
from heinfer.network.join import Index, distinct, expand, starts

Vector = NDArray[np.float64]
Matrix = Vector | csr_array

_TABLE = 1 << 16
"""A table of so many pairs is kept whatever part of them there is."""
_SPARSE = 16
"""How many times the pairs that there are a larger table may have."""
_DENSE = 4
"""The same of a matrix: numpy multiplies it faster than scipy does its entries."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """A relation between the places of an axis.

    Attributes:
        outputs, inputs: how many places there are on either side.
        out, into: the pairs, distinct, sorted by output, then by input.
    """

    outputs: int
    inputs: int
    out: Index
    into: Index

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{self.size} of {self.outputs} x {self.inputs}"

    @classmethod
    def of_keys(cls, outputs: int, inputs: int, keys: Index) -> Pairs:
        """Of output * inputs + input, distinct and ascending."""
        return cls(outputs, inputs, *np.divmod(keys, inputs))

    @classmethod
    def one_to_one(cls, places: int, outputs: int | None = None, first: int = 0) -> Pairs:
        """Every place is read by the same, or by that ``first`` places further of so many."""
        index = np.arange(places)
        return cls(outputs or places, places, first + index, index)

    @classmethod
    def all_to_all(cls, outputs: int, inputs: int) -> Pairs:
        return cls.of_keys(outputs, inputs, np.arange(outputs * inputs))

    @property
    def size(self) -> int:
        return int(self.out.size)

    @cached_property
    def keys(self) -> Index:
        """output * inputs + input of every pair, ascending."""
        return self.out * self.inputs + self.into

    @cached_property
    def first(self) -> Index:
        """Where the pairs of every output begin, and where they end: shape (outputs + 1,)."""
        return np.append(0, np.cumsum(self.reads))

    @cached_property
    def reads(self) -> Index:
        """How many inputs every output reads."""
        return np.bincount(self.out, minlength=self.outputs)

    @cached_property
    def readers(self) -> Index:
        """How many outputs read every input."""
        return np.bincount(self.into, minlength=self.inputs)

    @property
    def is_on_diagonal(self) -> bool:
        """Whether no place reads another than the same."""
        return bool(self.outputs == self.inputs and (self.out == self.into).all())

    @property
    def is_identity(self) -> bool:
        return self.size == self.outputs and self.is_on_diagonal

    @cached_property
    def _table(self) -> NDArray[np.int32] | None:
        """The number of every pair by its key, -1 where there is none; no table where few keys are pairs."""
        places = self.outputs * self.inputs
        if places > max(_TABLE, _SPARSE * self.size):
            return None
        table = np.full(places, -1, dtype=np.int32)
        table[self.keys] = np.arange(self.size)
        return table

    def find(self, out: Index, into: Index) -> Index:
        """The numbers of pairs, -1 for those that are none."""
        keys = out * self.inputs + into
        if self._table is not None:
            return np.asarray(self._table[keys], dtype=np.int64)
        places = np.minimum(np.searchsorted(self.keys, keys), max(self.size - 1, 0))
        return np.where(self.keys[places] == keys, places, -1) if self.size else np.full(keys.shape, -1)

    def matrix(self, values: Vector) -> Matrix:
        """(outputs, inputs) with a value at every pair, as what is multiplied faster."""
        if self.outputs * self.inputs > _DENSE * self.size:
            return csr_array((values, self.into, self.first), shape=(self.outputs, self.inputs))
        matrix = values
        if self.size < self.outputs * self.inputs:
            matrix = np.zeros(self.outputs * self.inputs)
            matrix[self.keys] = values
        return matrix.reshape(self.outputs, self.inputs)

    def then(self, after: Pairs) -> Pairs:
        """Both relations one after the other."""
        if self.is_identity or after.is_identity:
            return after if self.is_identity else self
        product: Matrix = after.matrix(np.ones(after.size)) @ self.matrix(np.ones(self.size))  # positive: none cancels
        return Pairs.of_keys(after.outputs, self.inputs, _keys_of(product, self.inputs))

    def ways(self, after: Pairs) -> int:
        """How many ways there are through a place in the middle, from an input of this relation to an output of it."""
        return int((self.reads * after.readers).sum())

    def most_then(self, after: Pairs) -> int:
        """A bound on the pairs of both relations one after the other: the ways, and all that is read by all readers."""
        reached = int(np.count_nonzero(after.reads) * np.count_nonzero(self.readers))
        return min(self.ways(after), reached)

    def chains(self, after: Pairs) -> tuple[Index, Index]:
        """Every way through a place in the middle: the pair of ``after`` and that of this relation before it."""
        return expand(self.first[after.into], self.first[after.into + 1])

    def transposed(self) -> tuple[Pairs, Index]:
        """The same pairs read backwards, and which of these each is."""
        order = np.lexsort((self.out, self.into))
        return Pairs(self.inputs, self.outputs, self.into[order], self.out[order]), order

    def equals(self, other: Pairs) -> bool:
        return self.is_like(other) and np.array_equal(self.keys, other.keys)

    def is_like(self, other: Pairs) -> bool:
        """Whether both are between the same places."""
        return (self.outputs, self.inputs) == (other.outputs, other.inputs)

    def within(self, other: Pairs) -> NDArray[np.bool_]:
        """Which pairs another relation between the same places has too."""
        return other.find(self.out, self.into) >= 0

    def kept(self, kept: NDArray[np.bool_]) -> Pairs:
        return Pairs(self.outputs, self.inputs, self.out[kept], self.into[kept])

    def united(self, other: Pairs) -> Pairs:
        return Pairs.of_keys(self.outputs, self.inputs, distinct(np.concatenate([self.keys, other.keys])))


def _keys_of(matrix: Matrix, columns: int) -> Index:
    """row * columns + column of what is not zero, ascending."""
    if isinstance(matrix, np.ndarray):
        return np.flatnonzero(matrix)
    found = matrix.tocoo()
    return np.sort(found.row.astype(np.int64) * columns + found.col)


@dataclass(frozen=True, eq=False)
class Axis:
    """Pairs along an axis of a plane, each by a tap: pairs of one tap have one weight.

    Attributes:
        pairs: which places read which.
        tap: (pairs,) 0, 1, ..., taps - 1.
        taps: how many there are.
    """

    pairs: Pairs
    tap: Index
    taps: int

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{self.pairs.size} pairs by {self.taps} taps"

    @classmethod
    def one_to_one(cls, places: int) -> Axis:
        return cls(Pairs.one_to_one(places), np.zeros(places, dtype=np.int64), 1)

    @classmethod
    def each(cls, places: int) -> Axis:
        """Every place reads the same, with a weight of its own."""
        return cls(Pairs.one_to_one(places), np.arange(places), places)

    @classmethod
    def whole(cls, places: int) -> Axis:
        """One output reads every place, each with a weight of its own."""
        return cls(Pairs.all_to_all(1, places), np.arange(places), places)

    @classmethod
    def windows(cls, inputs: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
        """The windows of a kernel: places beyond the border are not read."""
        out, tap = (a.reshape(-1) for a in np.indices((outputs, kernel)))
        into = out * stride - padding + tap * dilation
        inside = (into >= 0) & (into < inputs)
        return cls(Pairs(outputs, inputs, out[inside], into[inside]), tap[inside], kernel)

    def kept(self, kept: NDArray[np.bool_]) -> tuple[Axis, Index]:
        """Some of the pairs with the taps that they have, renumbered, and what number each of these had."""
        taps, tap = np.unique(self.tap[kept], return_inverse=True)
        return Axis(self.pairs.kept(kept), tap, taps.size), taps

    def transposed(self) -> Axis:
        pairs, order = self.pairs.transposed()
        return Axis(pairs, self.tap[order], self.taps)

    def then(self, after: Axis) -> tuple[Axis, Ways]:
        """Both relations one after the other, and what its taps are made of.

        A pair of the product has as its tap all the pairs of taps by which places in the middle lead from the input
        to the output: at a border some are missing, and the tap is another.
        """
        second, first = self.pairs.chains(after.pairs)
        codes = after.tap[second] * self.taps + self.tap[first]
        keys = after.pairs.out[second] * self.pairs.inputs + self.pairs.into[first]
        order = np.lexsort((codes, keys))
        keys, codes = keys[order], codes[order]
        begin = starts(keys)
        words = np.random.default_rng(2).integers(2**62, size=self.taps * after.taps)
        marks = np.add.reduceat(words[codes], begin) if keys.size else keys
        _, example, tap = np.unique(marks, return_index=True, return_inverse=True)
        end = np.append(begin[1:], keys.size)
        owner, place = expand(begin[example], end[example])
        axis = Axis(Pairs.of_keys(after.pairs.outputs, self.pairs.inputs, keys[begin]), tap, example.size)
        made_of, by = expand(begin[example[tap]], end[example[tap]])
        if made_of.size != codes.size or not np.array_equal(codes[by], codes):
            raise AssertionError("two taps have one mark")
        return axis, Ways(owner, *np.divmod(codes[place], self.taps))


@dataclass(frozen=True, eq=False)
class Ways:
    """What the taps of a product are made of: each of these adds tap ``second`` after tap ``first`` to tap ``tap``."""

    tap: Index
    second: Index
    first: Index

    __repr__ = brief_repr

    def by_factors(self) -> dict[tuple[int, int], list[int]]:
        """The taps that every pair of a second and a first tap adds to, as often as it does."""
        found: dict[tuple[int, int], list[int]] = {}
        for tap, *factors in zip(self.tap.tolist(), self.second.tolist(), self.first.tolist(), strict=True):
            found.setdefault((factors[0], factors[1]), []).append(tap)
        return found

"""Terms of a map, counted by what tells them apart: which places may add to it, which it may read, up to translation.

An output may be summed in several rows and an input read at several places, but of few patterns: the rest is moved as
a whole. Two terms with the same patterns and the same distance between them have the same diagonals, so a matrix of
millions of entries has thousands of kinds of terms. They are counted without a look at each: pairs of channels, times
pairs of elements of a plane.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heinfer.network.join import Index, distinct, distinct_columns, expand
from heinfer.network.linear_map import LinearMap
from heinfer.planner.kernel.sheets import Sheets, counted, summed


@dataclass(frozen=True, eq=False)
class PatternSet:
    """For every owner a set of places (ciphertext, slot modulo m), as a pattern and how far it is moved.

    Attributes:
        pattern: (owners,) number of each one's pattern.
        moved: (owners,) by how many slots.
        first: (patterns + 1,) where the places of each begin and end in the next two.
        ciphertext, slot: places of the patterns.
    """

    pattern: Index
    moved: Index
    first: Index
    ciphertext: Index
    slot: Index

    @staticmethod
    def of(owners: int, owner: Index, ciphertext: Index, slot: Index, modulus: int) -> PatternSet:
        """Group places by owner; every owner 0, 1, ... has one."""
        owner, ciphertext, slot = distinct_columns(owner, ciphertext, slot % modulus)
        bounds = np.searchsorted(owner, np.arange(owners + 1))
        moved = slot[bounds[:-1]]
        owner, ciphertext, slot = distinct_columns(owner, ciphertext, (slot - moved[owner]) % modulus)
        words = np.random.default_rng(1).integers(2**62, size=(int(ciphertext.max()) + 1) * modulus)
        marks = np.add.reduceat(words[ciphertext * modulus + slot], bounds[:-1])
        _, example, pattern = np.unique(marks, return_index=True, return_inverse=True)
        lengths = np.diff(bounds)
        _, places = expand(bounds[example], bounds[example + 1])
        found = PatternSet(pattern, moved, np.append(0, np.cumsum(lengths[example])), ciphertext[places], slot[places])
        _, places = expand(found.first[pattern], found.first[pattern + 1])
        if not (np.array_equal(found.slot[places], slot) and np.array_equal(found.ciphertext[places], ciphertext)):
            raise AssertionError("two patterns have one mark")
        return found

    @property
    def patterns(self) -> int:
        return self.first.size - 1


@dataclass(frozen=True, eq=False)
class Kinds:
    """Kinds of terms: (accumulator, entry of its row) with like patterns at like distances.

    Attributes:
        rows, reads: number of the pattern of the rows that may add, and of the places that hold the input.
        distance: slots from the one to the other, modulo the modulus.
        weight: how many terms are of each kind.
    """

    rows: Index
    reads: Index
    distance: Index
    weight: Index


def count_kinds(linear: LinearMap, element: Index, rows: PatternSet, reads: PatternSet, modulus: int) -> Kinds:
    """Count the terms of a map: those of each stencil as channels times planes, never entry by entry.

    Args:
        element: the output element of every owner of rows.
        rows, reads: where accumulators and input elements are, modulo the modulus.
    """
    found, weights = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for times, owner in _layers(element, rows, linear.bias.size):
        pattern = np.where(owner >= 0, rows.pattern[owner], -1)
        moved = np.where(owner >= 0, rows.moved[owner], 0)
        for stencil in linear.stencils:
            outputs = Sheets.of(pattern, moved, stencil.out_planes, modulus)
            planes = slice(stencil.first, stencil.first + stencil.inputs)
            inputs = Sheets.of(reads.pattern[planes], reads.moved[planes], stencil.in_planes, modulus)
            for part in counted(stencil, outputs, inputs, modulus):
                found.append((part.out * reads.patterns + part.into) * modulus + part.distance)
                weights.append(times * part.weight)
    keys, weight = summed(np.concatenate(found), np.concatenate(weights))
    pair, distance = np.divmod(keys, modulus)
    return Kinds(*np.divmod(pair, reads.patterns), distance, weight)


def _layers(element: Index, rows: PatternSet, elements: int) -> Iterator[tuple[int, Index]]:
    """Accumulators as layers with at most one an element: its number of each element (-1 for none).

    Equal accumulators are one, which counts so many times.
    """
    order = np.lexsort((-rows.moved, rows.pattern, element))
    columns = element[order], rows.pattern[order], rows.moved[order]
    new = np.append(True, np.any([np.diff(column) != 0 for column in columns], axis=0))
    times = np.diff(np.append(np.flatnonzero(new), order.size))
    order = order[new]
    for number in distinct(times).tolist():
        owners = order[times == number]
        of = element[owners]
        rank = np.arange(of.size) - np.searchsorted(of, of)
        for layer in range(int(rank.max()) + 1):
            owner = np.full(elements, -1, dtype=np.int64)
            owner[of[rank == layer]] = owners[rank == layer]
            yield number, owner

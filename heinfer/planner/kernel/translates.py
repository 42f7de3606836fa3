"""Terms of a map, counted by what tells them apart: which places may add to it, which it may read, up to translation.

An output may be summed in several rows and an input read at several places, but of few patterns: the rest is moved as
a whole. Two terms with the same patterns and the same distance between them have the same diagonals, so a matrix of
millions of entries has thousands of kinds of terms, and one pass over its entries counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heinfer.network.linear_map import LinearMap
from heinfer.planner.kernel.join import Index, distinct, distinct_columns, expand

_LOT = 4_000_000
"""Entries looked at together: bounds the memory."""
_BINS = 4_000_000
"""Kinds that are counted in an array; where more are possible, entries are sorted."""


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
    """Count the terms of a map.

    Args:
        element: the output element of every owner of rows.
        rows, reads: where accumulators and input elements are, modulo the modulus.
    """
    span = 2 * modulus  # a difference of two residues, made positive
    of_read = reads.pattern * span + reads.moved
    of_row = rows.pattern * (reads.patterns * span) + modulus - rows.moved
    kinds = rows.patterns * reads.patterns * span
    found, weights = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for times, row in _layers(element, of_row, int(np.prod(linear.out_shape))):
        counted = np.zeros(kinds if kinds <= _BINS else 0, dtype=np.int64)
        for start in range(0, linear.rows.size, _LOT):
            lot = slice(start, start + _LOT)
            keys = row[linear.rows[lot]]
            keys += of_read[linear.cols[lot]]
            keys = keys[keys >= 0] if (row < 0).any() else keys
            if counted.size:
                counted += np.bincount(keys, minlength=kinds)
            else:
                values, counts = np.unique(keys, return_counts=True)
                found, weights = [*found, values], [*weights, times * counts]
        values = np.flatnonzero(counted)
        found, weights = [*found, values], [*weights, times * counted[values]]
    keys, weight = _added(np.concatenate(found), np.concatenate(weights), modulus)
    pair, distance = np.divmod(keys, modulus)
    return Kinds(*np.divmod(pair, reads.patterns), distance, weight)


def _layers(element: Index, of_row: Index, elements: int) -> Iterator[tuple[int, Index]]:
    """Accumulators as layers with at most one an element: its number of each element (far below 0 for none).

    Equal accumulators are one, which counts so many times.
    """
    order = np.lexsort((of_row, element))
    element, of_row = element[order], of_row[order]
    new = np.append(True, (np.diff(element) != 0) | (np.diff(of_row) != 0))
    times = np.diff(np.append(np.flatnonzero(new), element.size))
    element, of_row = element[new], of_row[new]
    for number in distinct(times).tolist():
        of, row = element[times == number], of_row[times == number]
        rank = np.arange(of.size) - np.searchsorted(of, of)
        for layer in range(int(rank.max()) + 1):
            of_element = np.full(elements, -(2**62), dtype=np.int64)
            of_element[of[rank == layer]] = row[rank == layer]
            yield number, of_element


def _added(keys: Index, weights: Index, modulus: int) -> tuple[Index, Index]:
    """Distinct (pair, distance modulo the modulus) of keys whose distances span twice that, and their weights."""
    pair, distance = np.divmod(keys, 2 * modulus)
    keys = pair * modulus + distance % modulus
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.append(True, np.diff(keys) != 0)) if keys.size else keys
    return keys[starts], np.add.reduceat(weights[order], starts) if keys.size else weights

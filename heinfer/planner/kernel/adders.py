"""Which diagonals can add which terms of a map, found in lots of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heinfer.layout.layout import Layout
from heinfer.network.join import Index, distinct, expand, starts
from heinfer.network.linear_map import LinearMap
from heinfer.planner.kernel.accumulators import Accumulators
from heinfer.planner.kernel.incidence import Classes, Incidence
from heinfer.planner.kernel.translates import Kinds, PatternSet, count_kinds

_PAIRS_A_LOT = 1_000_000
"""Pairs of a kind of terms and a diagonal looked at together: bounds the memory."""


@dataclass(frozen=True)
class Outline:
    """What is known of a choice of diagonals before one is made.

    Attributes:
        at_least: a bound on their number.
        forced: the numbers of all that can add anything, ascending, where no term has a choice: all are needed.
    """

    at_least: int
    forced: Index | None


@dataclass(frozen=True, eq=False)
class Adders:
    """The diagonals that can add the terms of a map.

    A diagonal from ciphertext s to ciphertext t by shift r has the number (s * targets + t) * modulus + r.

    Attributes:
        map: the affine map.
        accumulators: rows that its outputs may be summed in.
        source: where its inputs are.
        targets: ciphertexts of the output.
        modulus: shifts count modulo this.
    """

    map: LinearMap
    accumulators: Accumulators
    source: Layout
    targets: int
    modulus: int

    def outline(self) -> Outline:
        """A bound: no diagonal adds more terms than the one to its ciphertext that could add most."""
        gains, wanted = np.zeros(self._count), np.zeros(self.targets)
        is_forced = True
        for kind, diagonal, weight in self._by_lot():
            np.add.at(gains, diagonal, weight[kind].astype(np.float64))  # numpy is slow where it must convert
            wanted += np.bincount(diagonal[starts(kind)] // self.modulus % self.targets, weight, self.targets)
            is_forced &= kind.size == weight.size
        if is_forced:
            forced = np.flatnonzero(gains)
            return Outline(max(1, forced.size), forced)
        most = gains.reshape(-1, self.targets, self.modulus).max(axis=(0, 2))
        return Outline(max(1, int(np.ceil(wanted[most > 0] / most[most > 0]).sum())), None)

    def incidence(self) -> Incidence:
        """The problem of choosing among them."""
        marks = np.random.default_rng(0).integers(2**62, size=self._count)
        return Incidence(Classes.joined([Classes.of(*lot, marks) for lot in self._by_lot()]))

    @property
    def _count(self) -> int:
        return self.source.ciphertexts * self.targets * self.modulus

    def _by_lot(self) -> Iterator[tuple[Index, Index, Index]]:
        """Every (kind of terms, diagonal) such that the diagonal can add them, and how many terms are of each kind.

        Pairs are distinct, and sorted by kind; kinds are numbered anew in every lot.
        """
        accumulators, source = self.accumulators, self.source.index
        target, slot = np.nonzero(accumulators.row >= 0)
        row = accumulators.row[target, slot]
        rows = PatternSet.of(accumulators.element.size, row, target, slot, self.modulus)
        ciphertext, slot = np.nonzero(source >= 0)
        reads = PatternSet.of(self.source.size, source[ciphertext, slot], ciphertext, slot, self.modulus)
        kinds = count_kinds(self.map, accumulators.element, rows, reads, self.modulus)

        pairs = np.cumsum(np.diff(rows.first)[kinds.rows] * np.diff(reads.first)[kinds.reads])
        for lot in np.split(np.arange(pairs.size), np.flatnonzero(np.diff(pairs // _PAIRS_A_LOT)) + 1):
            yield *self._adding(kinds, lot, rows, reads), kinds.weight[lot]

    def _adding(self, kinds: Kinds, lot: Index, rows: PatternSet, reads: PatternSet) -> tuple[Index, Index]:
        """Pairs of some kinds of terms with diagonals: each may be added in any of its rows, from any copy it reads."""
        row_of, row = expand(rows.first[kinds.rows[lot]], rows.first[kinds.rows[lot] + 1])
        pattern = kinds.reads[lot][row_of]
        pair, read = expand(reads.first[pattern], reads.first[pattern + 1])
        kind, row = row_of[pair], row[pair]
        shift = (kinds.distance[lot][kind] + reads.slot[read] - rows.slot[row]) % self.modulus
        diagonal = (reads.ciphertext[read] * self.targets + rows.ciphertext[row]) * self.modulus + shift
        if kind.size > lot.size:
            kind, diagonal = np.divmod(distinct(kind * self._count + diagonal), self._count)
        return kind, diagonal

"""The hitting-set problem behind the diagonals: which of them can add which term, and which patterns they make."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heinfer.planner.join import Index, expand


class Incidence:
    """Which diagonal can add which term, indexed both ways."""

    def __init__(self, cell: Index, diagonal: Index) -> None:
        """Take pairs sorted by cell; cells are numbered from 0 without gaps."""
        self.cells = cells = int(cell[-1]) + 1 if cell.size else 0
        self.diagonal = diagonal
        self._cell = cell
        self._cell_first = np.searchsorted(cell, np.arange(cells + 1))
        self._by_diagonal = np.argsort(diagonal, kind="stable")
        self._sorted_diagonal = diagonal[self._by_diagonal]

    def cells_of(self, diagonal: int) -> Index:
        first, last = np.searchsorted(self._sorted_diagonal, [diagonal, diagonal + 1])
        return self._cell[self._by_diagonal[first:last]]

    def diagonals_of(self, cells: Index) -> Index:
        """Diagonals of all pairs of the given cells, with repetitions."""
        return self.diagonal[expand(self._cell_first[cells], self._cell_first[cells + 1])[1]]

    def without_redundant(self, chosen: list[int]) -> list[int]:
        """Drop diagonals, small ones first, all of whose terms the others can add."""
        times = np.zeros(self.cells, dtype=np.int64)
        for diagonal in chosen:
            times[self.cells_of(diagonal)] += 1
        kept = set(chosen)
        for diagonal in sorted(chosen, key=lambda d: self.cells_of(d).size):
            cells = self.cells_of(diagonal)
            if (times[cells] > 1).all():
                kept.remove(diagonal)
                times[cells] -= 1
        return [diagonal for diagonal in chosen if diagonal in kept]


class Pattern:
    """The shifts chosen so far, and how well each further shift would continue them.

    ``closes[s]`` counts the triples of chosen shifts with a + b - c = s: the parallelograms that s completes.
    """

    def __init__(self, modulus: int) -> None:
        self.chosen = np.zeros(modulus, dtype=np.int64)
        self.sums = np.zeros(modulus, dtype=np.int64)
        self.differences = np.zeros(modulus, dtype=np.int64)
        self.closes = np.zeros(modulus, dtype=np.int64)
        residues = np.arange(modulus)
        self.shortness = 1 - np.minimum(residues, modulus - residues) / modulus

    def add(self, shift: int) -> None:
        if self.chosen[shift]:
            return
        minus = np.roll(self.chosen[::-1], 1)  # at r: whether -r is chosen
        self.closes += 2 * np.roll(self.differences, shift) + np.roll(minus, 2 * shift)
        self.sums += 2 * np.roll(self.chosen, shift)
        self.sums[2 * shift % self.sums.size] += 1
        self.closes += np.roll(self.sums, -shift)
        self.differences += np.roll(self.chosen, -shift) + np.roll(minus, shift)
        self.differences[0] += 1
        self.chosen[shift] = 1

    def rank(self, shifts: Index) -> NDArray[np.float64]:
        """Higher is better: a shift in use already, then one that closes many parallelograms, then a short one."""
        return np.where(self.chosen[shifts] > 0, np.inf, self.closes[shifts] + self.shortness[shifts])

"""The hitting-set problem behind the diagonals: which of them can add which term."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heinfer.network.join import Index, expand, stable_order


@dataclass(frozen=True, eq=False)
class Classes:
    """Terms that the same diagonals can add, as one: nothing that chooses diagonals can tell them apart.

    Attributes:
        mark: (classes,) a hash of the diagonals of each.
        weight: (classes,) how many terms each stands for.
        first: (classes + 1,) where the diagonals of each begin and end in ``diagonal``.
        diagonal: those diagonals, one class after the other.
    """

    mark: Index
    weight: Index
    first: Index
    diagonal: Index

    @staticmethod
    def of(cell: Index, diagonal: Index, weight: Index, marks: Index) -> Classes:
        """Classify cells of like terms, given as distinct pairs sorted by cell.

        Args:
            cell: 0, 1, ..., each with at least one diagonal.
            weight: how many terms each cell stands for.
            marks: a random word for each diagonal.
        """
        starts = np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1]])) if cell.size else cell
        first = np.append(starts, cell.size)
        mark = np.add.reduceat(marks[diagonal], starts) if cell.size else cell
        return Classes(mark, weight, first, diagonal).merged()

    @staticmethod
    def joined(parts: Sequence[Classes]) -> Classes:
        """Classes of several lots of terms."""
        lengths = np.concatenate([np.diff(part.first) for part in parts])
        return Classes(
            np.concatenate([part.mark for part in parts]),
            np.concatenate([part.weight for part in parts]),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate([part.diagonal for part in parts]),
        ).merged()

    def merged(self) -> Classes:
        """The same classes with equal ones made one. Equal marks with unlike diagonals: less likely than 2^-20."""
        order = np.argsort(self.mark)
        ordered = self.mark[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if order.size else order
        chosen = order[starts]
        weight = np.add.reduceat(self.weight[order], starts) if order.size else order
        sizes = np.diff(self.first)
        lengths = sizes[chosen]
        if not (np.repeat(lengths, np.diff(np.append(starts, order.size))) == sizes[order]).all():
            raise AssertionError("two sets of diagonals have one mark")
        _, places = expand(self.first[chosen], self.first[chosen + 1])
        mark = ordered[starts]
        return Classes(mark, weight, np.concatenate([[0], np.cumsum(lengths)]), self.diagonal[places])


class Incidence:
    """Which diagonal can add which class of terms, indexed both ways.

    Attributes:
        numbers: the diagonals that can add anything, ascending; methods take and return positions in it.
        weight: how many terms each class stands for.
    """

    def __init__(self, classes: Classes) -> None:
        self.weight = classes.weight
        is_there = np.zeros(int(classes.diagonal.max(initial=-1)) + 1, dtype=bool)
        is_there[classes.diagonal] = True
        self.numbers = np.flatnonzero(is_there)
        self._diagonal = np.cumsum(is_there)[classes.diagonal] - 1
        self._first = classes.first
        cell = np.repeat(np.arange(classes.weight.size), np.diff(classes.first))
        by_diagonal = stable_order(self._diagonal, self.numbers.size)
        self._cell_by_diagonal = cell[by_diagonal]
        self._diagonal_first = np.searchsorted(self._diagonal[by_diagonal], np.arange(self.numbers.size + 1))

    @property
    def cells(self) -> int:
        """Number of classes."""
        return int(self.weight.size)

    def cells_of(self, diagonal: int) -> Index:
        return self._cell_by_diagonal[self._diagonal_first[diagonal] : self._diagonal_first[diagonal + 1]]

    def terms_of(self, cells: Index) -> tuple[Index, NDArray[np.float64]]:
        """Diagonals that can add the given classes, one for each class and diagonal, and how many terms that is."""
        owner, places = expand(self._first[cells], self._first[cells + 1])
        return self._diagonal[places], self.weight[cells][owner].astype(np.float64)

    def without_redundant(self, chosen: list[int]) -> list[int]:
        """Drop diagonals, small ones first, all of whose terms the others can add."""
        cells_of = {diagonal: self.cells_of(diagonal) for diagonal in chosen}
        times = np.zeros(self.cells, dtype=np.int64)
        for cells in cells_of.values():
            times[cells] += 1
        kept = set(chosen)
        for diagonal in sorted(chosen, key=lambda d: self.weight[cells_of[d]].sum()):
            cells = cells_of[diagonal]
            if (times[cells] > 1).all():
                kept.remove(diagonal)
                times[cells] -= 1
        return [diagonal for diagonal in chosen if diagonal in kept]

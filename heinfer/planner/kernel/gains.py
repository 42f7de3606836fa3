"""What a greedy choice of diagonals looks at: how much each would still add, and which patterns they make."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heinfer.network.join import Index

_BLOCK = 128


class Gains:
    """How many terms the translates of a set of babies by each giant would still add, while terms are added.

    A choice changes few of them: the largest of every block of giants is kept, so that a look at few finds the best.
    """

    def __init__(self, diagonals: Index, terms: NDArray[np.float64], members: Index, nowhere: int) -> None:
        """Count from nothing added.

        Args:
            diagonals, terms: what the diagonals can add (:meth:`heinfer.planner.kernel.incidence.Incidence.terms_of`).
            members: (babies, giants) the diagonal that each baby moved by each giant is, ``nowhere`` for none.
            nowhere: number of diagonals.
        """
        self._giants = np.empty((members.shape[0], nowhere), dtype=np.int64)  # that make each diagonal, by the baby
        for giants, moved in zip(self._giants, members, strict=True):
            known = np.flatnonzero(moved < nowhere)
            giants[moved[known]] = known
        counts = np.bincount(diagonals, terms, nowhere + 1)
        self._blocks = np.zeros((-(-members.shape[1] // _BLOCK), _BLOCK))
        self._gains = self._blocks.reshape(-1)
        self._gains[: members.shape[1]] = counts[members].sum(axis=0)
        self._largest = self._blocks.max(axis=1, initial=0)

    @property
    def left(self) -> bool:
        """Whether any term is left to be added."""
        return bool(self._largest.any())

    def near_best(self, tolerance: float) -> tuple[float, Index]:
        """The given share, above 0, of what the best giant adds, and the giants that add at least that."""
        least = tolerance * self._largest.max()
        blocks = np.flatnonzero(self._largest >= least)
        block, place = np.divmod(np.flatnonzero(self._blocks[blocks] >= least), _BLOCK)
        return least, blocks[block] * _BLOCK + place

    def subtract(self, diagonals: Index, terms: NDArray[np.float64]) -> None:
        """Take off terms that were added, given by all diagonals that could have added them."""
        changed = self._giants[:, diagonals]
        np.subtract.at(self._gains, changed.reshape(-1), np.broadcast_to(terms, changed.shape).reshape(-1))
        is_stale = np.zeros(self._largest.size, dtype=bool)
        is_stale[changed // _BLOCK] = True
        stale = np.flatnonzero(is_stale)
        self._largest[stale] = self._blocks[stale].max(axis=1)


class Pattern:
    """The shifts chosen so far, and how well each further shift would continue them.

    ``closes[s]`` counts the triples of chosen shifts with a + b - c = s: the parallelograms that s completes.
    """

    def __init__(self, modulus: int) -> None:
        self._chosen = np.zeros(modulus, dtype=np.int32)
        self._minus = np.zeros(modulus, dtype=np.int32)  # at r: whether -r is chosen
        self._sums = np.zeros(modulus, dtype=np.int32)
        self._differences = np.zeros(modulus, dtype=np.int32)
        self.closes = np.zeros(modulus, dtype=np.int32)
        residues = np.arange(modulus)
        self._shortness = 1 - np.minimum(residues, modulus - residues) / modulus

    def rank(self, shifts: Index) -> NDArray[np.float64]:
        """Of shifts, higher is better: one in use, then one that closes many parallelograms, then a short one."""
        return np.where(self._chosen[shifts] > 0, np.inf, self.closes[shifts] + self._shortness[shifts])

    def add(self, shift: int) -> None:
        modulus = self._chosen.size
        if self._chosen[shift]:
            return
        _add_moved(self.closes, self._differences, shift, 2)
        _add_moved(self.closes, self._minus, 2 * shift % modulus)
        _add_moved(self._sums, self._chosen, shift, 2)
        self._sums[2 * shift % modulus] += 1
        _add_moved(self.closes, self._sums, -shift % modulus)
        _add_moved(self._differences, self._chosen, -shift % modulus)
        _add_moved(self._differences, self._minus, shift)
        self._differences[0] += 1
        self._chosen[shift] = 1
        self._minus[-shift % modulus] = 1


def _add_moved(to: NDArray[np.int32], values: NDArray[np.int32], by: int, times: int = 1) -> None:
    """Add numpy.roll(values, by) to an array, so many times; ``by`` from 0 to its size - 1."""
    for _ in range(times):
        to[by:] += values[: values.size - by]
        to[:by] += values[values.size - by :]

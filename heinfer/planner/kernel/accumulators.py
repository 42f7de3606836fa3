"""Which rows may hold partial sums of which outputs, when reductions add rows up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.errors import PlanError
from heinfer.layout.layout import FREE, Layout
from heinfer.network.join import Index


@dataclass(frozen=True, eq=False)
class Accumulators:
    """The rows that partial sums may live in.

    Attributes:
        row: (ciphertexts, slots) number of the accumulator that a row adds to, -1 for none.
        element: output element of each accumulator.
    """

    row: Index
    element: Index

    __repr__ = brief_repr

    @staticmethod
    @lru_cache(maxsize=16)  # several layouts of the input lead to one of the output
    def of(target: Layout, offsets: tuple[int, ...]) -> Accumulators:
        """Group rows by the output slots that they reach; PlanError when a partial sum would count twice.

        Args:
            target: where the outputs shall be.
            offsets: g of the rows t + g that slot t adds up.
        """
        element = _row_elements(target.index, offsets)
        rows = np.full(element.shape, -1, dtype=np.int64)
        elements: list[int] = []
        for ciphertext in range(target.ciphertexts):
            reach = _Reach(target.index[ciphertext], element[ciphertext], offsets)
            # Slots with the same usable rows share an accumulator; name it by its least row.
            least = reach.least_rows()
            held = np.flatnonzero(target.index[ciphertext] >= 0)
            wanted = target.index[ciphertext, held]
            if (least[held] == target.slots).any():
                output = wanted[least[held] == target.slots][0]
                raise PlanError(f"no row of these reductions may hold partial sums of output {output}")
            _, first, owner = np.unique(least[held], return_index=True, return_inverse=True)
            of_slot = np.full(target.slots, -1, dtype=np.int64)
            of_slot[held] = owner + len(elements)
            rows[ciphertext] = reach.claimed(of_slot)
            if not reach.agrees(of_slot, rows[ciphertext]):
                raise PlanError("copies of an output share only some of their rows")
            elements += wanted[first].tolist()
        return Accumulators(rows, np.array(elements, dtype=np.int64))

    def complete(self, index: Index, offsets: Iterable[int]) -> Index:
        """Element that a FREE slot happens to hold after the reductions, FREE when its sum is only partial."""
        sizes = np.bincount(self.row[self.row >= 0], minlength=self.element.size)
        seen = np.full(index.shape, -1, dtype=np.int64)
        count = np.zeros(index.shape, dtype=np.int64)
        mixed = np.zeros(index.shape, dtype=bool)
        for offset in offsets:
            row = np.roll(self.row, -offset, axis=1)
            mixed |= (row >= 0) & (seen >= 0) & (row != seen)
            seen = np.where(row >= 0, row, seen)
            count += row >= 0
        whole = (seen >= 0) & ~mixed & (count == sizes[seen])
        return np.where(whole, self.element[seen], FREE)


@dataclass(frozen=True, eq=False)
class _Reach:
    """Which rows t + g each slot t of one ciphertext may add up, offset by offset: memory for one offset at a time.

    Attributes:
        index: (slots,) element that each slot shall hold.
        element: (slots,) element that each row may hold partial sums of.
        offsets: g.
    """

    index: Index
    element: Index
    offsets: tuple[int, ...]

    def _usable(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Each offset, and of which slots the row that far off may be used."""
        twice = np.concatenate([self.element, self.element])
        for offset in self.offsets:
            yield offset, (twice[offset : offset + self.index.size] == self.index) & (self.index >= 0)

    def least_rows(self) -> Index:
        """(slots,) the least usable row of each slot, the number of slots where there is none."""
        slots = self.index.size
        least = np.full(slots, slots)
        twice = np.tile(np.arange(slots), 2)
        for offset, usable in self._usable():
            np.minimum(least, twice[offset : offset + slots], out=least, where=usable)
        return least

    def claimed(self, of_slot: Index) -> Index:
        """(slots,) the largest of the accumulators, given by slot, that may use each row; -1 for none."""
        rows = np.full(self.index.size, -1, dtype=np.int64)
        for offset, usable in self._usable():
            moved = np.roll(np.where(usable, of_slot, -1), offset)
            np.maximum(rows, moved, out=rows)
        return rows

    def agrees(self, of_slot: Index, rows: Index) -> bool:
        """Whether each slot reaches just the rows of its accumulator, all of them."""
        twice = np.concatenate([rows, rows])
        reached = np.zeros(self.index.size, dtype=np.int64)
        for offset, usable in self._usable():
            mine = (twice[offset : offset + self.index.size] == of_slot) & (of_slot >= 0)
            if (mine != usable).any():
                return False
            reached += usable
        held = of_slot >= 0
        sizes = np.bincount(rows[rows >= 0], minlength=int(of_slot.max()) + 1)
        return bool((reached[held] == sizes[of_slot[held]]).all())


def _row_elements(index: Index, offsets: tuple[int, ...]) -> Index:
    """Output element whose partial sums row p may hold: all slots p - g that it reaches agree, or are FREE."""
    element = np.full_like(index, FREE)
    conflict = np.zeros(index.shape, dtype=bool)
    for offset in offsets:
        reached = np.roll(index, offset, axis=1)
        conflict |= (element != FREE) & (reached != FREE) & (element != reached)
        element = np.where(element == FREE, reached, element)
    return np.where(conflict | (element < 0), -1, element)

"""Which rows may hold partial sums of which outputs, when reductions add rows up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

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

    @classmethod
    def of(cls, target: Layout, offsets: tuple[int, ...]) -> Accumulators:
        """Group rows by the output slots that they reach; PlanError when a partial sum would count twice.

        Args:
            target: where the outputs shall be.
            offsets: g of the rows t + g that slot t adds up.
        """
        element = _row_elements(target.index, offsets)
        rows = np.full(element.shape, -1, dtype=np.int64)
        elements: list[int] = []
        for ciphertext in range(target.ciphertexts):
            held = np.flatnonzero(target.index[ciphertext] >= 0)
            wanted = target.index[ciphertext, held]
            cones = (held[:, None] + np.array(offsets)) % target.slots
            usable = element[ciphertext, cones] == wanted[:, None]
            if not usable.any(axis=1).all():
                output = wanted[~usable.any(axis=1)][0]
                raise PlanError(f"no row of these reductions may hold partial sums of output {output}")
            # Slots with the same usable rows share an accumulator; name it by its least row.
            least = np.where(usable, cones, target.slots).min(axis=1)
            names, first, owner = np.unique(least, return_index=True, return_inverse=True)
            claimed = np.where(usable, owner[:, None] + len(elements), -1)
            np.maximum.at(rows[ciphertext], cones.reshape(-1), claimed.reshape(-1))
            mine = rows[ciphertext, cones] == owner[:, None] + len(elements)
            sizes = np.bincount(
                rows[ciphertext][rows[ciphertext] >= len(elements)] - len(elements), minlength=names.size
            )
            if not (mine == usable).all() or not (usable.sum(axis=1) == sizes[owner]).all():
                raise PlanError("copies of an output share only some of their rows")
            elements += wanted[first].tolist()
        return cls(rows, np.array(elements, dtype=np.int64))

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


def _row_elements(index: Index, offsets: tuple[int, ...]) -> Index:
    """Output element whose partial sums row p may hold: all slots p - g that it reaches agree, or are FREE."""
    element = np.full_like(index, FREE)
    conflict = np.zeros(index.shape, dtype=bool)
    for offset in offsets:
        reached = np.roll(index, offset, axis=1)
        conflict |= (element != FREE) & (reached != FREE) & (element != reached)
        element = np.where(element == FREE, reached, element)
    return np.where(conflict | (element < 0), -1, element)

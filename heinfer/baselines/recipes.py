"""One linear step of a published method: which places it reads from and writes to, and how it adds up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from heinfer.baselines.slot_maps import SlotMap, Windows, subset_sums
from heinfer.network.join import Index, distinct
from heinfer.network.linear_map import LinearMap
from heinfer.planner.kernel.diagonals import Diagonal


@dataclass(frozen=True, eq=False)
class Recipe:
    """One linear step: each entry of the map is read where the source has its input, and written to its output.

    Attributes:
        name: of the step.
        map: what it computes.
        source, target: where its inputs and outputs are.
        sums: rotations that add up partial sums, which end at the outputs.
        in_place: whether products stay in the slot of their input: a dot product, or every slot has the input.
        turns: rotations of the input before such products; 0 alone is none.
    """

    name: str
    map: LinearMap
    source: SlotMap | Windows
    target: SlotMap
    sums: tuple[int, ...] = ()
    in_place: bool = False
    turns: tuple[int, ...] = (0,)

    @property
    def reductions(self) -> tuple[int, ...]:
        """Rotations after the products: those that add up, or else those that copy what is complete."""
        return self.sums or tuple(-step % self.target.slots for step in self.target.copies)

    @cached_property
    def diagonals(self) -> tuple[Diagonal, ...]:
        """From which ciphertext to which, by which shifts."""
        slots, ciphertexts = self.target.slots, self.target.ciphertexts
        source, read = self.source.reads(self.map)
        rows = self.map.entries.rows
        target, written = self.target.ciphertext[rows], self.target.slot[rows]
        shift = self._turn(read, written) if self.in_place else (read - written) % slots
        pairs, shifts = np.divmod(distinct((source * ciphertexts + target) * slots + shift), slots)
        sources, targets = np.divmod(pairs, ciphertexts)
        idle = np.setdiff1d(np.arange(ciphertexts), targets)  # none of their outputs reads anything
        columns = [np.concatenate(c) for c in ((sources, 0 * idle), (targets, idle), (shifts, 0 * idle))]
        return tuple(Diagonal(*numbers) for numbers in zip(*(c.tolist() for c in columns), strict=True))

    def _turn(self, read: Index, written: Index) -> Index:
        """The turn after which a product's slot is one of those that are added up to where it shall be."""
        turn = np.full_like(read, self.turns[0])
        for other in self.turns[1:]:
            reached = np.isin((read - other - written) % self.target.slots, subset_sums(self.sums) % self.target.slots)
            turn[reached] = other
        return turn

    def sampled(self, most: int) -> tuple[Recipe, int]:  # noqa: ARG002
        """The step for at most so many of its ciphertexts, and their number, where they are many and alike.

        Other steps are counted whole: the number is 0.
        """
        return self, 0


class Rows(Recipe):
    """Dot products: a plaintext product in place, then rotate-and-sum."""

    def sampled(self, most: int) -> tuple[Recipe, int]:
        number = self.target.ciphertexts
        if number <= most:
            return self, 0
        kept = np.isin(self.target.ciphertext, spread(number, most))
        return replace(self, map=_rows_of(self.map, kept), target=self.target.part(kept)), number


class Transform(Recipe):
    """Few ciphertexts into few, by baby and giant steps; every copy of an output is made from its own inputs."""

    @property
    def reductions(self) -> tuple[int, ...]:
        return ()


class Gather(Recipe):
    """Masks: what rows left behind, moved into few ciphertexts."""

    def sampled(self, most: int) -> tuple[Recipe, int]:
        source, target = self.source, self.target
        assert isinstance(source, SlotMap)
        number = source.ciphertexts
        if number <= most:
            return self, 0
        kept = np.isin(source.ciphertext, spread(number, most))
        masks = identity((int(kept.sum()),))
        return replace(self, map=masks, source=source.part(kept), target=target.part(kept)), number


def spread(number: int, most: int) -> Index:
    """At most so many of 0, 1, ..., number - 1, evenly spread."""
    return np.arange(number) if number <= most else np.arange(most) * number // most


def _rows_of(linear: LinearMap, kept: NDArray[np.bool_]) -> LinearMap:
    """Some of the outputs of a map, as one axis."""
    every = linear.entries
    some = kept[every.rows]
    rows = (np.cumsum(kept) - 1)[every.rows[some]]
    shape = (int(kept.sum()),)
    return LinearMap.from_entries(linear.in_shape, shape, rows, every.cols[some], every.values[some], linear.bias[kept])


def identity(shape: tuple[int, ...]) -> LinearMap:
    return LinearMap.diagonal(shape, np.ones(prod(shape)), np.zeros(prod(shape)))

"""A layout as a manifest carries it: runs of equally spaced elements in equally spaced slots."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from heinfer.brief import brief_repr
from heinfer.errors import LayoutError
from heinfer.layout.layout import ZERO, Layout

MAX_SLOTS = 1 << 15
"""Half of the largest ring degree in the security table."""

MAX_TOTAL_SLOTS = 1 << 22
"""Slots of all ciphertexts of one layout: what a hostile manifest can make a reader allocate is 8 bytes for each."""

_MAX_AXES = 8

_Count = Annotated[int, Field(ge=1, le=MAX_TOTAL_SLOTS)]
_Index = Annotated[int, Field(ge=0, lt=MAX_TOTAL_SLOTS)]


class Part(BaseModel):
    """Base of everything in a manifest: immutable, nothing converted, nothing extra, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    __repr__ = brief_repr


class LayoutRun(Part):
    """`count` elements index, index + index_step, ... in slots slot, slot + slot_step, ... of one ciphertext."""

    ciphertext: _Index
    slot: _Index
    slot_step: _Count
    index: _Index
    index_step: Annotated[int, Field(gt=-MAX_TOTAL_SLOTS, lt=MAX_TOTAL_SLOTS)]
    count: _Count

    @property
    def last_slot(self) -> int:
        return self.slot + (self.count - 1) * self.slot_step

    @property
    def last_index(self) -> int:
        return self.index + (self.count - 1) * self.index_step


class LayoutPart(Part):
    """A layout as runs; slots that no run names hold zero."""

    shape: Annotated[tuple[_Count, ...], Field(min_length=1, max_length=_MAX_AXES)]
    ciphertexts: _Count
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    runs: tuple[LayoutRun, ...]

    @model_validator(mode="after")
    def _is_a_layout(self) -> LayoutPart:
        if self.ciphertexts * self.slots > MAX_TOTAL_SLOTS:
            raise ValueError(f"a layout may have {MAX_TOTAL_SLOTS} slots in all")
        if prod(self.shape) > self.ciphertexts * self.slots:
            raise ValueError("a layout needs a slot for every element of its shape")
        try:
            self.to_layout()
        except LayoutError as error:
            raise ValueError(str(error)) from None
        return self

    @classmethod
    def from_layout(cls, layout: Layout) -> LayoutPart:
        """Describe a layout; LayoutError when it has FREE slots, which must not cross the network."""
        if layout.has_free_slots:
            raise LayoutError("a layout with slots that may hold anything must be masked before it leaves the server")
        runs = tuple(run for ciphertext, row in enumerate(layout.index) for run in _runs(ciphertext, row))
        return cls(shape=layout.shape, ciphertexts=layout.ciphertexts, slots=layout.slots, runs=runs)

    def to_layout(self) -> Layout:
        """The layout itself; LayoutError when a run leaves its ciphertext or shape, or a slot is named twice."""
        size = prod(self.shape)
        index = np.full((self.ciphertexts, self.slots), ZERO)
        for number, run in enumerate(self.runs):
            if run.ciphertext >= self.ciphertexts or run.last_slot >= self.slots:
                raise LayoutError(f"run {number} leaves {self.ciphertexts} ciphertexts of {self.slots} slots")
            if not (run.index < size and 0 <= run.last_index < size):
                raise LayoutError(f"run {number} leaves the {size} elements of the shape")
            held = index[run.ciphertext, run.slot : run.last_slot + 1 : run.slot_step]
            if (held != ZERO).any():
                raise LayoutError(f"run {number} names a slot that another run names")
            held[:] = run.index + run.index_step * np.arange(run.count)
        return Layout(self.shape, index)


def _runs(ciphertext: int, row: NDArray[np.int64]) -> Iterator[LayoutRun]:
    """Greedy: each run is as long as both spacings stay what they are."""
    slots = np.flatnonzero(row >= 0)
    indices = row[slots]
    steps = np.stack([np.diff(slots), np.diff(indices)])
    # A run that starts at element i and has the spacing steps[:, i] ends where the spacing first differs.
    changes = np.flatnonzero((steps[:, 1:] != steps[:, :-1]).any(axis=0)) + 1
    start = 0
    while start < len(slots):
        after = np.searchsorted(changes, start, side="right")
        end = int(changes[after]) if after < len(changes) else len(slots) - 1
        slot_step, index_step = (int(s) for s in steps[:, start]) if end > start else (1, 1)
        yield LayoutRun(
            ciphertext=ciphertext,
            slot=int(slots[start]),
            slot_step=slot_step,
            index=int(indices[start]),
            index_step=index_step,
            count=end - start + 1,
        )
        start = end + 1

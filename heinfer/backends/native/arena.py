"""Where values lie: one arena of rows, a place is used again when its value is dead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heinfer.backends.native.instructions import Instruction, Shape, inputs_of, outputs_of, scratch_rows
from heinfer.backends.native.waves import Wave


@dataclass(frozen=True)
class Arena:
    """First rows of values, first rows of every instruction's scratch (wave by wave), and rows in all."""

    values: Mapping[int, int]
    scratch: tuple[tuple[int, ...], ...]
    rows: int


def place(waves: Sequence[Wave], shapes: Sequence[Shape], inputs: Sequence[int], outputs: Sequence[int]) -> Arena:
    """Give every value and scratch the first place that is free while it is needed."""
    last = _last_waves(waves, outputs)
    free = _FreeRows()
    values = {value: free.take(shapes[value].size) for value in inputs}
    scratch: list[tuple[int, ...]] = []
    for number, wave in enumerate(waves):
        for value in (made for instruction in wave for made in outputs_of(instruction)):
            values[value] = free.take(shapes[value].size)
        sizes = [scratch_rows(instruction, shapes) for instruction in wave]
        scratch.append(tuple(free.take(size) for size in sizes))
        for start, size in zip(scratch[-1], sizes, strict=True):
            free.give(start, size)
        for value in _touched(wave):
            if last.get(value, number) == number:
                free.give(values[value], shapes[value].size)
    return Arena(values, tuple(scratch), free.rows)


def _touched(wave: Sequence[Instruction]) -> set[int]:
    return {value for member in wave for value in (*inputs_of(member), *outputs_of(member))}


def _last_waves(waves: Sequence[Wave], outputs: Sequence[int]) -> dict[int, int]:
    """Value -> last wave that reads it; never for outputs."""
    last = {value: number for number, wave in enumerate(waves) for member in wave for value in inputs_of(member)}
    return last | dict.fromkeys(outputs, len(waves))


class _FreeRows:
    """Free ranges of rows, by their starts; the arena grows when none is large enough."""

    def __init__(self) -> None:
        self.rows = 0
        self._ranges: list[tuple[int, int]] = []

    def take(self, size: int) -> int:
        if not size:
            return 0
        for position, (start, length) in enumerate(self._ranges):
            if length >= size:
                rest = [(start + size, length - size)] if length > size else []
                self._ranges[position : position + 1] = rest
                return start
        start = self.rows
        if self._ranges and sum(self._ranges[-1]) == self.rows:  # the last one is free up to the end: let it grow
            start = self._ranges.pop()[0]
        self.rows = start + size
        return start

    def give(self, start: int, size: int) -> None:
        if not size:
            return
        merged: list[tuple[int, int]] = []
        for begin, length in sorted([*self._ranges, (start, size)]):
            if merged and sum(merged[-1]) == begin:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((begin, length))
        self._ranges = merged

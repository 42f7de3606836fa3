"""Where values lie: one arena of rows, a place is used again when its value is dead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heinfer.backends.native.instructions import Instruction, Residues, inputs_of, outputs_of, rows_needed
from heinfer.backends.native.waves import Wave
from heinfer.errors import CircuitError

MOST_ROWS = 1 << 22
"""Of an arena: on the smallest rings that are secure 16 GiB, on those of the shipped models 128 and more."""


@dataclass(frozen=True)
class Arena:
    """First rows of values, first rows of every instruction's scratch (wave by wave), and rows in all."""

    values: Mapping[int, int]
    scratch: tuple[tuple[int, ...], ...]
    rows: int


def place(waves: Sequence[Wave], residues: Sequence[Residues], inputs: Sequence[int], outputs: Sequence[int]) -> Arena:
    """Give every value and scratch the first place that is free while it is needed.

    Raises:
        CircuitError: when that takes more than `MOST_ROWS`.
    """
    last = _last_waves(waves, outputs)
    free = _FreeRows()
    values = {value: free.take(residues[value].size) for value in inputs}
    scratch: list[tuple[int, ...]] = []
    for number, wave in enumerate(waves):
        for value in (made for instruction in wave for made in outputs_of(instruction)):
            values[value] = free.take(residues[value].size)
        sizes = [rows_needed(instruction, residues)[0] for instruction in wave]
        scratch.append(tuple(free.take(size) for size in sizes))
        for start, size in zip(scratch[-1], sizes, strict=True):
            free.give(start, size)
        for value in _touched(wave):
            if last.get(value, number) == number:
                free.give(values[value], residues[value].size)
    return Arena(values, tuple(scratch), free.rows)


def _touched(wave: Sequence[Instruction]) -> set[int]:
    return {value for member in wave for value in (*inputs_of(member), *outputs_of(member))}


def _last_waves(waves: Sequence[Wave], outputs: Sequence[int]) -> dict[int, int]:
    """Value -> last wave that reads it; never for outputs."""
    last = {value: number for number, wave in enumerate(waves) for member in wave for value in inputs_of(member)}
    return last | dict.fromkeys(outputs, len(waves))


class _FreeRows:
    """Free ranges of rows, the first that is large enough first; the arena grows when none is.

    A tree of maxima over the lengths of the ranges, each at its start, finds that in logarithmic time: circuits come
    from bundles, and a hostile one leaves a hole after every value.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._lengths: dict[int, int] = {}
        self._starts: dict[int, int] = {}
        """By the end of a range."""
        self._leaves = 1
        self._tree = [0, 0]

    def take(self, size: int) -> int:
        if not size:
            return 0
        if self._tree[1] >= size:
            start = self._first(size)
            length = self._lengths[start]
            self._remove(start)
            if length > size:
                self._add(start + size, length - size)
            return start
        start = self._starts.get(self.rows, self.rows)
        if start < self.rows:  # the last one is free up to the end: let it grow
            self._remove(start)
        self.rows = start + size
        if self.rows > MOST_ROWS:
            raise CircuitError(
                f"a run would hold more than {MOST_ROWS} rows of residues at once: the circuit keeps too many values, "
                "compile the model again, or get the bundle from who did"
            )
        return start

    def give(self, start: int, size: int) -> None:
        if not size:
            return
        end = start + size
        if start in self._starts:
            start = self._starts[start]
            self._remove(start)
        if end in self._lengths:
            after = end
            end += self._lengths[after]
            self._remove(after)
        self._add(start, end - start)

    def _add(self, start: int, length: int) -> None:
        self._lengths[start], self._starts[start + length] = length, start
        if start >= self._leaves:
            self._leaves = 1 << start.bit_length()
            self._tree = [0] * (2 * self._leaves)
            for of, kept in self._lengths.items():
                self._set(of, kept)
        self._set(start, length)

    def _remove(self, start: int) -> None:
        del self._starts[start + self._lengths.pop(start)]
        self._set(start, 0)

    def _set(self, start: int, length: int) -> None:
        node = start + self._leaves
        self._tree[node] = length
        while node > 1:
            node //= 2
            self._tree[node] = max(self._tree[2 * node], self._tree[2 * node + 1])

    def _first(self, size: int) -> int:
        node = 1
        while node < self._leaves:
            node *= 2
            node += self._tree[node] < size
        return node - self._leaves

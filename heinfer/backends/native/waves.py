"""Instructions in waves: those of one wave do not need each other, so that their work can be spread over threads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from heinfer.backends.native.instructions import Division, Extension, Instruction, Kept, Sum, inputs_of, outputs_of

Wave = tuple[Instruction, ...]

MOST_TOGETHER = 8
"""Instructions of a wave: all their results are in memory at once."""


def _is_ready(instruction: Instruction) -> bool:
    """Whether it has no slots to transform first: that takes memory, and enough time for all threads."""
    return not isinstance(instruction, Sum) or instruction.kept is not Kept.SLOTS


_SMALL = (Sum, Division, Extension)  # a key switch has enough to do for all threads on its own


def in_waves(instructions: Sequence[Instruction]) -> tuple[Wave, ...]:
    """Put neighbours of one kind together that do not read each other's results."""
    waves: list[Wave] = []
    for kind, run in groupby(instructions, key=type):
        wave: Wave = ()
        for instruction in run:
            made = {value for member in wave for value in outputs_of(member)}
            joins = (
                issubclass(kind, _SMALL)
                and len(wave) < MOST_TOGETHER
                and made.isdisjoint(inputs_of(instruction))
                and all(_is_ready(member) for member in (*wave, instruction))
            )
            if not joins and wave:
                waves.append(wave)
                wave = ()
            wave += (instruction,)
        waves.append(wave)
    return tuple(waves)

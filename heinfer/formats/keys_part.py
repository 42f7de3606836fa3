"""A set of evaluation keys as a manifest lists it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from heinfer.ckks.parameters import MAX_PRIMES
from heinfer.formats.layout_part import Part

PART_NAME = r"^[a-z][a-z0-9_-]{0,31}$"
"""Of an input, an output or a key set."""

Level = Annotated[int, Field(ge=0, lt=MAX_PRIMES)]


class KeysPart(Part):
    """Evaluation keys the plan uses, each with the highest level at which it does: a key has no more primes than that.

    Attributes:
        name: of the set.
        steps: of the rotations (slots to the left, ascending).
        step_levels: one a step.
        relinearization_level: None when nothing is relinearized.
    """

    name: Annotated[str, Field(pattern=PART_NAME)]
    steps: tuple[Annotated[int, Field(ge=1)], ...]
    step_levels: tuple[Level, ...]
    relinearization_level: Level | None

    @classmethod
    def of(cls, levels: Mapping[int, int]) -> KeysPart:
        """From the level of every key by its step, 0 for relinearization."""
        steps = tuple(sorted(levels.keys() - {0}))
        return cls(
            name="all",
            steps=steps,
            step_levels=tuple(levels[step] for step in steps),
            relinearization_level=levels.get(0),
        )

    @property
    def levels(self) -> Mapping[int, int]:
        """The level of every key by its step, 0 for relinearization, in ascending order of steps."""
        first = {} if self.relinearization_level is None else {0: self.relinearization_level}
        return first | dict(zip(self.steps, self.step_levels, strict=True))

    @model_validator(mode="after")
    def _ascend(self) -> KeysPart:
        if len(self.steps) != len(self.step_levels):
            raise ValueError("there must be one level a step")
        if any(step >= after for step, after in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError("steps must ascend, each once")
        return self

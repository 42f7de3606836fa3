"""What another thread may know and do of a run."""

from __future__ import annotations

from typing import Protocol


class RunControl(Protocol):
    """Of one run, on any backend."""

    @property
    def fraction(self) -> float:
        """How much of it is done, in 0..1."""

    def cancel(self) -> None:
        """Have it end soon, with CancelledError."""


class StepControl:
    """Of a run that asks between two operations whether to go on."""

    def __init__(self, steps: int) -> None:
        self.done = 0
        self.is_cancelled = False
        self._steps = steps

    @property
    def fraction(self) -> float:
        return self.done / self._steps

    def cancel(self) -> None:
        self.is_cancelled = True

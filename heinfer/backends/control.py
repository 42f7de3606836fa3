"""What another thread may know and do of a run."""

from __future__ import annotations

from typing import Protocol


class RunControl(Protocol):
    """Of one run, on any backend; the native library's own is one."""

    @property
    def done(self) -> int:
        """How many steps of it are done, of Runtime.steps."""

    def cancel(self) -> None:
        """Have it end soon, with CancelledError."""


class StepControl:
    """Of a run in Python, which asks between two steps whether to go on."""

    def __init__(self) -> None:
        self.done = 0
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

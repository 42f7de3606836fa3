"""How far an evaluation has come, and the wish to cancel it, between the service and a worker process.

They share three numbers in memory: what passes through the pool's pipe comes when a task is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import Array, c_int64
from math import ceil
from multiprocessing import get_context
from threading import Event, Thread
from typing import TypeAlias

from heinfer.backends.control import RunControl

Cell: TypeAlias = "Array[c_int64]"
"""Number of the watched evaluation, how much of it is done, and number of the one to cancel."""

_NUMBER, _DONE, _CANCEL = range(3)
_WHOLE = 1 << 30
_SECONDS = 0.02


def new_cell() -> Cell:
    """For one worker, whose process gets it at its start."""
    cell: Cell = get_context("spawn").RawArray(c_int64, 3)
    return cell


def done(cell: Cell, number: int) -> float:
    """How much of an evaluation is done, in 0..1; 0 when it is not under way."""
    return cell[_DONE] / _WHOLE if cell[_NUMBER] == number else 0.0


def cancel(cell: Cell, number: int) -> None:
    """Have an evaluation end soon, if it is under way or is begun later."""
    cell[_CANCEL] = number


@contextmanager
def watched(cell: Cell, number: int, control: RunControl) -> Iterator[None]:
    """In the worker: keep the cell up to date while the evaluation runs, and cancel it when that is wished."""
    over = Event()

    def look() -> None:
        cell[_DONE] = ceil(control.fraction * _WHOLE)
        if cell[_CANCEL] == number:
            control.cancel()

    def keep_looking() -> None:
        while not over.wait(_SECONDS):
            look()

    cell[_DONE] = 0
    cell[_NUMBER] = number
    look()
    thread = Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        cell[_NUMBER] = 0


class Watch:
    """One evaluation, seen from the service, whichever worker has it."""

    def __init__(self) -> None:
        self._fraction: Callable[[], float] = lambda: 0.0
        self._cancel: Callable[[], None] = lambda: None
        self.is_cancelled = False
        self.is_begun = False

    @property
    def fraction(self) -> float:
        return self._fraction()

    def begin(self, cell: Cell, number: int) -> None:
        """A worker is about to begin it, or to begin it again."""
        self.is_begun = True
        self._fraction = lambda: done(cell, number)
        self._cancel = lambda: cancel(cell, number)
        if self.is_cancelled:
            self._cancel()

    def cancel(self) -> None:
        self.is_cancelled = True
        self._cancel()

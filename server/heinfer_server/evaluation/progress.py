"""How far an evaluation has come, and the request to cancel it, between the service and a worker process.

They share three numbers in memory, and no other worker does: what passes through the socket comes when a task is over.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import Array, c_int64, sizeof
from math import ceil
from threading import Event, Lock, Thread
from time import sleep
from typing import TypeAlias

from heinfer.backends.control import RunControl

Cell: TypeAlias = "Array[c_int64]"
"""Number of the watched evaluation, how much of it is done, and number of the one to cancel."""

_NUMBER, _DONE, _CANCEL = range(3)
_Numbers = c_int64 * 3
_WHOLE = 1 << 30
_SECONDS = 0.02


def new_cell() -> tuple[Cell, int]:
    """For one worker process, with the descriptor that it gets at its start."""
    descriptor = os.memfd_create("heinfer-cell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, sizeof(_Numbers))
    # Nobody may make it shorter: who reads beyond the end of a mapped file is ended.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return open_cell(descriptor), descriptor


def open_cell(descriptor: int) -> Cell:
    """The numbers that another process shares; the descriptor is not needed after that."""
    return _Numbers.from_buffer(mmap.mmap(descriptor, sizeof(_Numbers)))


def done(cell: Cell, number: int) -> float:
    """How much of an evaluation is done, in 0..1 whatever the worker writes; 0 when it is not under way."""
    return min(max(cell[_DONE] / _WHOLE, 0.0), 1.0) if cell[_NUMBER] == number else 0.0


def cancel(cell: Cell, number: int) -> None:
    """Have an evaluation end soon, if it is under way or is begun later."""
    cell[_CANCEL] = number


class Watcher:
    """In the worker: keeps a cell up to date while an evaluation runs, and cancels it on request.

    Its thread is there from the start, because a worker that answers may make none.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._look: Callable[[], None] = lambda: None
        self._looking = Lock()
        self._begun = Event()
        Thread(target=self._keep_looking, name="watcher", daemon=True).start()

    @contextmanager
    def watched(self, number: int, control: RunControl) -> Iterator[None]:
        """Around an evaluation."""

        def look() -> None:
            self._cell[_DONE] = ceil(control.fraction * _WHOLE)
            if self._cell[_CANCEL] == number:
                control.cancel()

        self._cell[_DONE] = 0
        self._cell[_NUMBER] = number
        look()
        self._look = look
        self._begun.set()
        try:
            yield
        finally:
            with self._looking:
                self._begun.clear()
                self._cell[_NUMBER] = 0

    def _keep_looking(self) -> None:
        while self._begun.wait():
            with self._looking:
                if self._begun.is_set():
                    self._look()
            sleep(_SECONDS)


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

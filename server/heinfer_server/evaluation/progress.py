"""How far an evaluation has come, and the request to cancel it, between the service and a worker process.

They share three numbers in memory, and no other worker does: what passes through the socket comes when a task is over.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int64, sizeof
from math import ceil
from threading import Event, Lock, Thread
from time import sleep

from heinfer.backends.control import RunControl

_NUMBER, _DONE, _CANCEL = range(3)
_Numbers = c_int64 * 3
_WHOLE = 1 << 30
_SECONDS = 0.02


def shared_memory() -> int:
    """A descriptor of memory for one worker process and the service, which nobody makes shorter."""
    descriptor = os.memfd_create("heinfer-cell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, sizeof(_Numbers))
    # Who reads beyond the end of a mapped file is ended.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


class Cell:
    """Number of the watched evaluation, how much of it is done, and number of the one to cancel.

    The worker tells and is told to cancel, the service looks and cancels. The descriptor is not needed after that.
    """

    def __init__(self, descriptor: int) -> None:
        self._numbers = _Numbers.from_buffer(mmap.mmap(descriptor, sizeof(_Numbers)))

    def fraction(self, number: int) -> float:
        """How much of an evaluation is done, in 0..1 whatever the worker writes; 0 when it is not under way."""
        is_under_way = self._numbers[_NUMBER] == number
        return min(max(self._numbers[_DONE] / _WHOLE, 0.0), 1.0) if is_under_way else 0.0

    def cancel(self, number: int) -> None:
        """Have an evaluation end soon, if it is under way or is begun later."""
        self._numbers[_CANCEL] = number

    def is_cancelled(self, number: int) -> bool:
        return self._numbers[_CANCEL] == number

    def tell(self, number: int, fraction: float) -> None:
        """So much of an evaluation is done."""
        self._numbers[_DONE] = ceil(fraction * _WHOLE)
        self._numbers[_NUMBER] = number

    def clear(self) -> None:
        """No evaluation is under way."""
        self._numbers[_NUMBER] = 0


class Watcher:
    """In the worker: keeps the cell up to date while an evaluation runs, and cancels it on request.

    Its thread is there from the start, because a worker that answers may make none.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._look: Callable[[], None] = lambda: None
        self._looking = Lock()
        self._begun = Event()
        Thread(target=self._keep_looking, name="watcher", daemon=True).start()

    @contextmanager
    def watched(self, number: int, control: RunControl, steps: int) -> Iterator[None]:
        """Around an evaluation of so many steps."""

        def look() -> None:
            self._cell.tell(number, control.done / steps)
            if self._cell.is_cancelled(number):
                control.cancel()

        look()
        self._look = look
        self._begun.set()
        try:
            yield
        finally:
            with self._looking:
                self._begun.clear()
                self._cell.clear()

    def _keep_looking(self) -> None:
        while self._begun.wait():
            with self._looking:
                if self._begun.is_set():
                    self._look()
            sleep(_SECONDS)


class Watch:
    """One evaluation, seen from the service, whichever worker has it."""

    def __init__(self) -> None:
        self._cell: Cell | None = None
        self._number = 0
        self.is_cancelled = False

    @property
    def is_begun(self) -> bool:
        return self._cell is not None

    @property
    def fraction(self) -> float:
        return 0.0 if self._cell is None else self._cell.fraction(self._number)

    def begin(self, cell: Cell, number: int) -> None:
        """A worker is about to begin it, or to begin it again."""
        self._cell, self._number = cell, number
        if self.is_cancelled:
            cell.cancel(number)

    def cancel(self) -> None:
        self.is_cancelled = True
        if self._cell is not None:
            self._cell.cancel(self._number)

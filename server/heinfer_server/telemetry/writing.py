"""Lines to a descriptor, written by a thread: who reads them may stand still, and nobody else waits for that."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread

MOST_WAITING = 1 << 20
"""Bytes of lines that wait to be written; more are lost."""

_GATHER_SECONDS = 0.02


class LineWriter:
    """Takes lines from threads that hold a lock together, and writes them in their order.

    Args:
        descriptor: to write to; a line that it does not take, of a disk that is full say, is lost.
        tick: is called, in the writer's thread, whenever so many seconds no line has come.
    """

    def __init__(self, descriptor: int, tick: Callable[[], None], seconds: float) -> None:
        self._descriptor = descriptor
        self._tick, self._seconds = tick, seconds
        self._lines: SimpleQueue[bytes | Event] = SimpleQueue()
        self._put = self._lost = self._told = 0
        self._written = self._failed = 0  # these are the thread's to change, and the others never
        Thread(target=self._write_all, name="log", daemon=True).start()

    def put(self, line: str) -> None:
        """Have a line written, unless too many wait."""
        data = line.encode() + b"\n"
        if self._put - self._written + len(data) > MOST_WAITING:
            self._lost += 1
            return
        self._put += len(data)
        self._lines.put(data)

    def take_lost(self) -> int:
        """How many lines were lost since the last call, if there is room now to say so; else none."""
        if self._put - self._written > MOST_WAITING // 2:
            return 0
        all_of_them = self._lost + self._failed
        lost, self._told = all_of_them - self._told, all_of_them
        return lost

    def flush(self, seconds: float) -> None:
        """Wait until all is written that was put before, but no longer than that."""
        written = Event()
        self._lines.put(written)
        written.wait(seconds)

    def _write_all(self) -> None:
        while True:
            try:
                came = [self._lines.get(timeout=self._seconds)]
            except Empty:
                self._tick()
                continue
            if not isinstance(came[0], Event):
                time.sleep(_GATHER_SECONDS)  # a turn of this thread for every line would cost more than the line
            with suppress(Empty):
                while True:
                    came.append(self._lines.get_nowait())
            self._write([line for line in came if not isinstance(line, Event)])
            for written in came:
                if isinstance(written, Event):
                    written.set()

    def _write(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        try:
            _write(self._descriptor, data)
        except OSError:
            self._failed += len(lines)
        self._written += len(data)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody has made it so, who shares it
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()

"""A process and the pipe to it: what it is asked, it answers in order."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.resource_tracker import ensure_running
from threading import Lock, Thread
from typing import Any, TypeVar

from heinfer_server.evaluation.signals import held_back

_EXIT_SECONDS = 1.0
"""From the end of its pipe to that of a process, at most."""

T = TypeVar("T")


def answer_all(pipe: Connection) -> None:
    """In the process: call what is asked for, until the other end is closed; what it raises ends the process."""
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(function(*arguments))


class LostError(Exception):
    """The process ended before it had answered."""


class AnsweringProcess:
    """A process that calls functions, one after the other.

    To be used in an event loop, which is never kept waiting: threads start it, write, read and end it.

    Args:
        target: what it runs, with these arguments and its end of the pipe: something that comes to :func:`answer_all`.
    """

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._loop = asyncio.get_running_loop()
        self._ours, self._theirs = context.Pipe()
        self._process = context.Process(target=target, args=(*arguments, self._theirs), daemon=True)
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._writer = ThreadPoolExecutor(1, "to-worker")
        self._reader = Thread(target=self._read, name="from-worker", daemon=True)
        self._changing = Lock()  # of who starts and who ends it
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether it has ended, of itself or not: it answers nothing any more."""
        return self._is_over

    @property
    def pid(self) -> int | None:
        return self._process.pid

    async def start(self) -> None:
        """Start it; it dies with the thread that does that: one of the event loop's own, which last as long as it."""
        await asyncio.to_thread(self._start)

    def ask(self, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Have it call a function when it has answered all that it was asked before.

        Raises, in the future: LostError when it ends before it has answered.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        self._asked.append(answer)
        if self._is_over:
            self._lose()
        else:
            self._writer.submit(self._write, function, arguments)
        return answer

    async def end(self) -> None:
        """Kill it, whatever it is doing, and wait until it is gone."""
        self._is_over = True
        await asyncio.to_thread(self._end)
        self._lose()

    def _start(self) -> None:
        with self._changing:
            if self._is_over:
                return
            with held_back():
                ensure_running()  # multiprocessing's own helper; it lets them through to what is started with it
            with held_back():
                self._process.start()
            self._theirs.close()  # so that its end is the end of the pipe
            self._reader.start()

    def _end(self) -> None:
        with self._changing:
            if self._process.pid is not None:
                self._process.kill()
                self._process.join()
            if self._reader.ident is not None:
                self._reader.join()
            self._writer.shutdown()
            self._theirs.close()
            self._ours.close()

    def _write(self, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        try:
            self._ours.send((function, arguments))
        except Exception:  # with one message less, all answers would go to those who asked before
            self._process.kill()

    def _read(self) -> None:
        try:
            while True:
                self._tell(self._answered, self._ours.recv())
        except Exception:  # mostly the end of the pipe; after any other, who gets which answer would not be known
            self._process.kill()
            self._process.join(_EXIT_SECONDS)
            self._tell(self._lose)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the event loop is closed: nobody waits
            self._loop.call_soon_threadsafe(what, *arguments)

    def _answered(self, result: object) -> None:
        answer = self._asked.popleft()
        if not answer.done():  # nobody may wait for it any more
            answer.set_result(result)

    def _lose(self) -> None:
        self._is_over = True
        while self._asked:
            answer = self._asked.popleft()
            if not answer.done():
                answer.set_exception(LostError(f"exit code {self._process.exitcode}"))
                answer.exception()  # nobody may ask for it

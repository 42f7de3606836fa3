"""A worker process and the socket to it: what it is asked, it answers in order."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from functools import partial
from threading import Lock, Thread
from typing import Any, TypeVar

from heinfer_server.evaluation.messages import ProtocolError, receive
from heinfer_server.evaluation.progress import Cell, shared_memory
from heinfer_server.evaluation.questions import Asked, Question
from heinfer_server.evaluation.signals import held_back

_EXIT_SECONDS = 1.0
"""From the end of its socket to that of a process, at most."""

_OUTPUT_BYTES = 1 << 14
"""That a process may print before it is lost; what is beyond them nobody reads."""

_MODULE = "heinfer_server.evaluation.worker_process"
_ENVIRONMENT = ("PATH", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "HEINFER_NATIVE_ISA")
_ENVIRONMENT_PREFIXES = ("LC_", "LD_", "PYTHON", "MALLOC_", "GLIBC_", "ASAN_", "UBSAN_")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

T = TypeVar("T")


class LostError(Exception):
    """The process ended before it had answered."""


class AnsweringProcess:
    """A process that answers questions, one after the other, and gets nothing of this one but what it is handed.

    To be used in an event loop, which is never kept waiting: threads start it, write, read and end it.

    Args:
        setup: a descriptor of what the process is started with.

    Attributes:
        cell: the numbers that it shares.
        is_over: whether it has ended, of itself or not: it answers nothing any more.
        reason: why it has ended, for the log.
    """

    def __init__(self, setup: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._shared = shared_memory()
        self._handed = setup, self._shared
        self.cell = Cell(self._shared)
        self._ours, self._theirs = socket.socketpair()
        self._process: subprocess.Popen[bytes] | None = None
        self._output = -1
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._due: deque[Asked[Any]] = deque()
        self._writer = ThreadPoolExecutor(1, "to-worker")
        self._reader = Thread(target=self._read, name="from-worker", daemon=True)
        self._changing = Lock()  # of who starts and who ends it
        self.is_over = False
        self.reason = "it was ended"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it; it dies with the thread that does that: one of the event loop's own, which last as long as it."""
        await asyncio.to_thread(self._start)

    def ask(self, question: Question[T]) -> asyncio.Future[T]:
        """Have it answer a question when it has answered all that it was asked before.

        Raises, in the future: LostError when it ends before it has answered, or answers something else.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        self._asked.append(answer)
        if self.is_over:
            self._lose()
        else:
            asked = Asked(question, secrets.randbits(64))
            self._due.append(asked)
            self._writer.submit(self._write, asked)
        return answer

    async def end(self) -> None:
        """Kill it, whatever it is doing, and wait until it is gone."""
        self.is_over = True
        await asyncio.to_thread(self._end)
        self._lose()

    def _start(self) -> None:
        with self._changing:
            if self.is_over:
                return
            # What is printed beyond the bound is lost, and nobody waits.
            self._output, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                with suppress(OSError):  # of more pipes than this user may have
                    fcntl(theirs, F_SETPIPE_SZ, _OUTPUT_BYTES)
                with held_back():
                    self._process = _started((*self._handed, self._theirs.fileno()), theirs)
            finally:
                os.close(theirs)
            self._theirs.close()  # so that its end is the end of the socket
            self._reader.start()

    def _end(self) -> None:
        with self._changing:
            self._kill()
            if self._process is not None:
                self._process.wait()
            if self._reader.ident is not None:
                self._reader.join()
            self._writer.shutdown()
            self._theirs.close()
            self._ours.close()
            for descriptor in (self._output, self._shared):
                if descriptor >= 0:
                    os.close(descriptor)
            self._output = self._shared = -1

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _write(self, asked: Asked[Any]) -> None:
        try:
            asked.request().send(self._ours)
        except Exception:  # with one message less, all answers would go to those who asked before
            self._kill()

    def _read(self) -> None:
        try:
            while True:
                self._tell(self._answered, self._next_answer())
        except Exception as error:  # mostly the end of the socket; after any other, nothing it sends counts
            self._kill()
            assert self._process is not None
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_SECONDS)
            fault = f"{error}, " if isinstance(error, ProtocolError) else ""
            self.reason = f"{fault}exit code {self._process.returncode}{self._printed()}"
            self._tell(self._lose)

    def _next_answer(self) -> object:
        first = self._ours.recv(1, socket.MSG_PEEK)
        if not first:
            raise EOFError
        if not self._due:
            raise ProtocolError("it answered what nobody had asked")
        return self._due.popleft().answer(partial(receive, self._ours))

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the event loop is closed: nobody waits
            self._loop.call_soon_threadsafe(what, *arguments)

    def _answered(self, result: object) -> None:
        answer = self._asked.popleft()
        if not answer.done():  # nobody may wait for it any more
            answer.set_result(result)

    def _lose(self) -> None:
        self.is_over = True
        lost = LostError(self.reason)
        while self._asked:
            answer = self._asked.popleft()
            if not answer.done():
                answer.set_exception(lost)
                answer.exception()  # nobody may ask for it

    def _printed(self) -> str:
        """The last of what it has printed: whoever took it over may print anything, but no lines of our log.

        In the thread that reads, which is over before the descriptor is another file's.
        """
        try:
            text = os.read(self._output, _OUTPUT_BYTES).decode(errors="replace").strip()
        except OSError:  # nothing
            return ""
        return f", it printed: {text[-_OUTPUT_BYTES // 4 :]}" if text else ""


def _started(handed: tuple[int, ...], output: int) -> subprocess.Popen[bytes]:
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # as multiprocessing does
    numbers = map(str, (*handed, os.getpid()))
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, *flags, "-P", "-m", _MODULE, *numbers],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=handed,
        env=_environment(os.environ),
    )


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Of ours, what has to do with libraries and the interpreter: a worker needs no setting, and no other's secret."""
    kept = {n: value for n, value in ours.items() if n in _ENVIRONMENT or n.startswith(_ENVIRONMENT_PREFIXES)}
    return {**kept, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)}

"""One worker process, as the service sees it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from heinfer.errors import CancelledError, EvaluationTimeoutError, WorkerFailedError
from heinfer_server.evaluation.loaded import with_room
from heinfer_server.evaluation.process import AnsweringProcess, LostError
from heinfer_server.evaluation.progress import Cell, Watch, new_cell
from heinfer_server.evaluation.questions import Evaluate, Forget, Question, Ready
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, TaskFailure
from heinfer_server.evaluation.worker_setup import WorkerSetup
from heinfer_server.keys.store import KeyStore, unknown_keys
from heinfer_server.telemetry.logs import log

_logger = logging.getLogger(__name__)

MOST_LOADED_KEYS = 64
"""Clients whose keys a worker keeps loaded, where there is room for so many."""

_START_SECONDS = 300.0

T = TypeVar("T")


@dataclass(frozen=True)
class Prefetched:
    """A request that was sent to a process while that evaluated another.

    Attributes:
        process: the process that has it.
        answer: the reply to it.
    """

    process: AnsweringProcess
    answer: asyncio.Future[Evaluated | TaskFailure]


class Worker:
    """A process of its own, so that a death or a hang touches one request and no other.

    It holds the keys of `most_keys` clients loaded, and runs one task at a time. After a failure it must be stopped and
    started again.

    Attributes:
        lock: held by whoever has the process do something.
    """

    def __init__(self, setup: WorkerSetup, timeout: float, registered: KeyStore, most_keys: int) -> None:
        self._setup = setup
        self._timeout = timeout
        self._registered = registered
        self._most_keys = most_keys
        self._process: AnsweringProcess | None = None
        self._sound = False
        self._failed = False
        self.lock = asyncio.Lock()
        self._cell: Cell | None = None
        self._number = 0
        self._ending: asyncio.Task[None] | None = None
        self._closed = False
        self._loaded: OrderedDict[str, None] = OrderedDict()

    @property
    def failed(self) -> bool:
        """Whether it has ended, by what it was given or idle, and has not been started again."""
        return self._failed or self.died_idle

    @property
    def died_idle(self) -> bool:
        """Whether the process has ended while it had nothing to do."""
        return self._sound and self._process is not None and self._process.is_over

    @property
    def running(self) -> bool:
        """Whether the process can take a task."""
        return self._sound and self._process is not None and not self._process.is_over

    @property
    def pid(self) -> int | None:
        """Id of the process; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def has(self, key_id: str) -> bool:
        """Whether the process holds these keys loaded."""
        return key_id in self._loaded

    @property
    def holds_gone_keys(self) -> bool:
        """Whether the process holds keys loaded that nobody has registered any more."""
        return any(key_id not in self._registered for key_id in self._loaded)

    async def start(self) -> None:
        """Start the process and wait until it has loaded the models; WorkerFailedError when it does not."""
        if self._closed:
            raise WorkerFailedError("the service ends")
        self._loaded.clear()
        try:
            await self._start()
        except (OSError, RuntimeError) as error:  # of files, of processes, of threads
            self._failed = True
            raise WorkerFailedError(_why_none_starts(error)) from error
        models = self._setup.models
        loaded = await self._run(_START_SECONDS, Ready(len(models), _START_SECONDS))
        for model, seconds in zip(models, loaded, strict=True):
            manifest = model.bundle.manifest
            facts = {"model": manifest.name, "version": manifest.model_version, "manifest": model.digest}
            log(_logger, logging.INFO, "model loaded", **facts, seconds=round(seconds, 3))

    async def _start(self) -> None:
        self._cell, descriptor = new_cell()
        try:
            self._process = process = AnsweringProcess(self._setup.descriptor, descriptor)
            await process.start()
        finally:
            os.close(descriptor)

    async def revive(self) -> None:
        """Start the process anew, unless it can take a task; hold the lock. WorkerFailedError as `start` does."""
        if self.running:
            return
        if self.died_idle and self._process is not None:
            log(_logger, logging.WARNING, "worker died idle", reason=self._process.reason)
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        """End the process, whatever it is doing; also when whoever waits for that goes away."""
        self._sound = False
        process, self._process = self._process, None
        if process is not None:
            self._ending = asyncio.create_task(process.end())
        if self._ending is not None and not self._ending.done():
            await asyncio.shield(self._ending)

    async def close(self) -> None:
        """End the process for good: nothing starts it again."""
        self._closed = True
        await self.stop()

    def prefetch(self, manifest: str, key_id: str, inputs: bytes) -> Prefetched | None:
        """Send a request while another runs, so that it begins without a round trip of messages in between.

        The caller acquires the lock next and passes the result to `evaluate`.

        Returns:
            None when nothing runs, or the keys of the request are not loaded, or no longer registered.
        """
        is_under_way = self.lock.locked() and not self._sound
        if not is_under_way or self._process is None or self._process.is_over:
            return None
        if not self.has(key_id) or key_id not in self._registered:
            return None
        question = self._question(EvaluationTask(manifest, key_id, None, (), inputs))
        return Prefetched(self._process, self._process.ask(question))

    async def evaluate(
        self, manifest: str, key_id: str, inputs: bytes, watch: Watch | None = None, sent: Prefetched | None = None
    ) -> Evaluated:
        """Evaluate one request; hold the lock.

        Args:
            manifest: digest of that of the version.
            watch: to tell of it.
            sent: the same request, if it was sent ahead.

        Raises:
            UnknownKeysError: when the keys are gone since the request came: one that waits keeps none of them alive.
            WorkerFailedError: when the process died.
            EvaluationTimeoutError: when it ran out of time.
            HeinferError: when the evaluation failed for a reason that the client may know.
            RuntimeError: when it failed for another.
        """
        await self.revive()
        if sent is not None and sent.process is self._process:
            result = await self._answer(self._timeout, sent.answer)
        else:
            result = await self._evaluate(manifest, key_id, inputs, watch)
        if key_id in self._loaded:
            self._loaded.move_to_end(key_id)
        if isinstance(result, TaskFailure):
            if not isinstance(result.error, CancelledError):  # whose job says so in its own line
                log(_logger, logging.ERROR, "evaluation failed", trace=result.trace)
            raise result.error or RuntimeError("the evaluation failed in the worker")
        return result

    async def _evaluate(
        self, manifest: str, key_id: str, inputs: bytes, watch: Watch | None
    ) -> Evaluated | TaskFailure:
        if key_id not in self._registered:
            raise unknown_keys()
        keys = None if self.has(key_id) else await asyncio.to_thread(self._registered.open, key_id)
        forget = self._make_room(key_id)
        self._number += 1
        if watch is not None and self._cell is not None:
            watch.begin(self._cell, self._number)
        task = EvaluationTask(manifest, key_id, keys, forget, inputs, self._number if watch else 0)
        result = await self._run(self._timeout, self._question(task))
        if isinstance(result, Evaluated):
            self._loaded[key_id] = None
        return result

    async def drain_reply(self, sent: Prefetched) -> None:
        """Consume the reply to an abandoned prefetched request, so that replies stay in step; hold the lock.

        Raises:
            WorkerFailedError, EvaluationTimeoutError: as `evaluate` does.
        """
        if self.running and sent.process is self._process:
            await self._answer(self._timeout, sent.answer)

    async def forget_gone_keys(self) -> None:
        """Have the process let go of keys that nobody has registered any more; WorkerFailedError when it cannot."""
        gone = tuple(key_id for key_id in self._loaded if key_id not in self._registered)
        for key_id in gone:
            del self._loaded[key_id]
        await self._run(self._timeout, Forget(gone))

    def _make_room(self, key_id: str) -> tuple[str, ...]:
        """Ids of the loaded keys that have to go: nobody has them registered any more, or others need their room."""
        owners = {other: self._registered.tenant_of(other) for other in self._loaded if other != key_id}
        live = {other: tenant for other, tenant in owners.items() if tenant is not None}
        keep = with_room(live, self._registered.tenant_of(key_id), self._most_keys)
        forget = tuple(other for other in owners if other not in keep)
        for other in forget:
            del self._loaded[other]
        return forget

    def _question(self, task: EvaluationTask) -> Evaluate:
        # One that was sent ahead may have begun before its time is counted here.
        return Evaluate(task, self._setup.output_lengths[task.manifest], 2 * self._timeout)

    async def _run(self, seconds: float, question: Question[T]) -> T:
        if self._process is None:
            raise WorkerFailedError("the process was ended")
        return await self._answer(seconds, self._process.ask(question))

    async def _answer(self, seconds: float, answer: asyncio.Future[T]) -> T:
        self._sound = False  # until the process has answered: also when this coroutine is cancelled
        try:
            async with asyncio.timeout(seconds):
                result = await answer
        except TimeoutError:
            self._failed = True
            log(_logger, logging.ERROR, "worker out of time", seconds=seconds)
            raise EvaluationTimeoutError(
                f"the evaluation took more than the {seconds:g} seconds that this service allows: ask its operator"
            ) from None
        except LostError as error:
            self._failed = True
            log(_logger, logging.ERROR, "worker failed", reason=str(error))
            raise WorkerFailedError("the process that evaluated the request died") from error
        self._sound, self._failed = True, False
        return result


def _why_none_starts(error: OSError | RuntimeError) -> str:
    if isinstance(error, PermissionError | FileNotFoundError) and error.filename == sys.executable:
        place = Path(sys.executable).resolve()
        return (
            f"{sys.executable} cannot be run by user {os.geteuid()} ({error.strerror}): it, or the interpreter that it "
            f"leads to, {place}, lies where this user may not look, below a home folder say. Install heinfer with an "
            "interpreter that every user may run"
        )
    return f"the machine has no process left to evaluate in: {error}"

"""One worker process, as the service sees it: it is started, asked, and ended."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TypeVar

from heinfer.errors import CancelledError, EvaluationTimeoutError, WorkerFailedError
from heinfer_server.evaluation.loaded import LoadedKeys
from heinfer_server.evaluation.process import AnsweringProcess, LostError
from heinfer_server.evaluation.progress import Watch
from heinfer_server.evaluation.questions import Evaluate, Forget, Question, Ready
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, TaskFailure
from heinfer_server.evaluation.worker_setup import WorkerSetup
from heinfer_server.keys.store import KeyStore, unknown_keys
from heinfer_server.telemetry.logs import log
from heinfer_server.telemetry.stages import Stages

_logger = logging.getLogger(__name__)

_START_SECONDS = 300.0

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """One request to evaluate.

    Attributes:
        manifest: digest of that of the version to evaluate.
        holder: whose turn it takes.
        key_id: of registered keys.
        inputs: the frame of input ciphertexts, found to be right.
        stages: where it is noted how long each took.
        ends: when it is not worth to begin any more, by the clock of the event loop.
        watch: to tell of it while it is under way.
    """

    manifest: str
    holder: str
    key_id: str
    inputs: bytes
    stages: Stages
    ends: float = inf
    watch: Watch | None = None


class Worker:
    """A process of its own, so that a death or a hang touches one request and no other.

    It answers one question after the other. After a failure it must be stopped and started again.

    Attributes:
        loaded: keys that the process holds loaded, of `most_keys` clients.
    """

    def __init__(self, setup: WorkerSetup, timeout: float, registered: KeyStore, most_keys: int) -> None:
        self._setup = setup
        self._timeout = timeout
        self._registered = registered
        self._process: AnsweringProcess | None = None
        self._sound = False
        self._failed = False
        self._number = 0
        self._ending: asyncio.Task[None] | None = None
        self._closed = False
        self.loaded = LoadedKeys(registered, most_keys)

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
    def answering(self) -> bool:
        """Whether the process has a task, and as far as is known goes on with it."""
        return not self._sound and self._process is not None and not self._process.is_over

    @property
    def pid(self) -> int | None:
        """Id of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process and wait until it has loaded the models; WorkerFailedError when it does not."""
        if self._closed:
            raise WorkerFailedError("the service ends")
        self.loaded.clear()
        try:
            self._process = process = AnsweringProcess(self._setup.descriptor)
            await process.start()
        except (OSError, RuntimeError) as error:  # of files, of processes, of threads
            self._failed = True
            raise WorkerFailedError(_why_none_starts(error)) from error
        models = self._setup.models
        loaded = await self.hear(self.ask(Ready(len(models), _START_SECONDS)), _START_SECONDS)
        for model, seconds in zip(models, loaded, strict=True):
            manifest = model.bundle.manifest
            facts = {"model": manifest.name, "version": manifest.model_version, "manifest": model.digest}
            log(_logger, logging.INFO, "model loaded", **facts, seconds=round(seconds, 3))

    async def revive(self) -> None:
        """Start the process anew, unless it can take a task; WorkerFailedError as `start` does."""
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

    def ask(self, question: Question[T]) -> asyncio.Future[T]:
        """Have the process answer a question after those that it was asked before.

        Returns:
            What it answers; LostError when it ends before.

        Raises:
            WorkerFailedError: when there is no process.
        """
        if self._process is None:
            raise WorkerFailedError("the process was ended")
        return self._process.ask(question)

    async def hear(self, answer: asyncio.Future[T], seconds: float | None = None) -> T:
        """Wait for an answer, for so many seconds, or as many as an evaluation may take.

        Raises:
            WorkerFailedError: when the process died.
            EvaluationTimeoutError: when it ran out of time.
        """
        seconds = self._timeout if seconds is None else seconds
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

    async def evaluate(self, request: Evaluation) -> Evaluated:
        """Evaluate one request.

        Raises:
            UnknownKeysError: when the keys are gone since the request came: one that waits keeps none of them alive.
            Those of :meth:`finish`.
        """
        key_id, watch = request.key_id, request.watch
        if key_id not in self._registered:
            raise unknown_keys()
        keys = None if key_id in self.loaded else await asyncio.to_thread(self._registered.open, key_id)
        gone = self.loaded.make_room(key_id)
        if gone:  # which is answered before what is asked next
            self.ask(Forget(gone))
        self._number += 1
        if watch is not None and self._process is not None:
            watch.begin(self._process.cell, self._number)
        task = EvaluationTask(request.manifest, key_id, keys, request.inputs, self._number if watch else 0)
        result = await self.finish(request, self.ask(self._evaluate(task)))
        self.loaded.add(key_id)
        return result

    def begin(self, request: Evaluation) -> asyncio.Future[Evaluated | TaskFailure]:
        """Ask for an evaluation with keys that are loaded, and leave it to the caller to finish it."""
        return self.ask(self._evaluate(EvaluationTask(request.manifest, request.key_id, None, request.inputs)))

    async def finish(self, request: Evaluation, answer: asyncio.Future[Evaluated | TaskFailure]) -> Evaluated:
        """Wait for the end of an evaluation.

        Raises:
            WorkerFailedError, EvaluationTimeoutError: as `hear` does.
            HeinferError: when the evaluation failed for a reason that the client may know.
            RuntimeError: when it failed for another.
        """
        result = await self.hear(answer)
        self.loaded.use(request.key_id)
        if isinstance(result, TaskFailure):
            if not isinstance(result.error, CancelledError):  # whose job says so in its own line
                log(_logger, logging.ERROR, "evaluation failed", trace=result.trace)
            raise result.error or RuntimeError("the evaluation failed in the worker")
        return result

    async def forget_gone_keys(self) -> None:
        """Have the process let go of keys that nobody has registered any more; WorkerFailedError when it cannot."""
        gone = self.loaded.gone
        self.loaded.forget(*gone)
        await self.hear(self.ask(Forget(gone)))

    def _evaluate(self, task: EvaluationTask) -> Evaluate:
        # One that is not the first in the pipe may have begun before its time is counted here.
        return Evaluate(task, self._setup.output_lengths[task.manifest], 2 * self._timeout)


def _why_none_starts(error: OSError | RuntimeError) -> str:
    if isinstance(error, PermissionError | FileNotFoundError) and error.filename == sys.executable:
        place = Path(sys.executable).resolve()
        return (
            f"{sys.executable} cannot be run by user {os.geteuid()} ({error.strerror}): it, or the interpreter that it "
            f"leads to, {place}, lies where this user may not look, below a home folder say. Install heinfer with an "
            "interpreter that every user may run"
        )
    return f"the machine has no process left to evaluate in: {error}"

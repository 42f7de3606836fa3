"""The worker processes: who evaluates what, and what happens when one dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from heinfer.errors import DeadlineError, WorkerFailedError
from heinfer_server.evaluation.departure import Departure, unless
from heinfer_server.evaluation.pace import Pace
from heinfer_server.evaluation.tasks import Evaluated
from heinfer_server.evaluation.turns import Turns
from heinfer_server.evaluation.watching import Watch
from heinfer_server.evaluation.worker import Worker
from heinfer_server.telemetry.logs import log
from heinfer_server.telemetry.metrics import Metrics
from heinfer_server.telemetry.stages import Stages

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """One request to evaluate.

    Attributes:
        model: its name.
        holder: whose turn it takes.
        key_id: of registered keys.
        inputs: the frame of input ciphertexts, found to be right.
        stages: where it is noted how long each took.
        ends: when it is not worth to begin any more, by the clock of the event loop.
        watch: to tell of it while it is under way.
    """

    model: str
    holder: str
    key_id: str
    inputs: bytes
    stages: Stages
    ends: float = inf
    watch: Watch | None = None


class WorkerPool:
    """A fixed number of workers: they serve holder after holder, if possible where the keys are loaded."""

    def __init__(self, workers: Sequence[Worker], metrics: Metrics, pace: Pace) -> None:
        self._metrics, self._pace = metrics, pace
        self._workers = list(workers)
        self._idle = list(self._workers)
        self._turns = Turns(len(workers))
        self._stopping = False
        self._preparations: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> int:
        """How many workers can evaluate, now or when they are done with what they do."""
        return 0 if self._stopping else sum(not worker.failed for worker in self._workers)

    @property
    def busy(self) -> int:
        """How many have something to do."""
        return len(self._workers) - len(self._idle)

    @property
    def waiting(self) -> int:
        """How many evaluations wait for one."""
        return self._turns.waiting

    async def start(self) -> None:
        """Start all workers and wait until they have loaded the models.

        Raises:
            WorkerFailedError: when one cannot.
        """
        await asyncio.gather(*(worker.start() for worker in self._workers))

    async def stop(self) -> None:
        """End all workers, whatever they are doing."""
        self._stopping = True
        for preparation in self._preparations:
            preparation.cancel()
        await asyncio.gather(*self._preparations, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def evaluate(self, task: Evaluation, gone: Departure) -> Evaluated:
        """Evaluate one request in a worker, unless its client goes away before that.

        When the worker dies or hangs, it is tried once more, in another process.

        Raises:
            DepartedError: when its client goes away.
            DeadlineError: when its turn does not come in time.
            UnknownKeysError, WorkerFailedError, HeinferError, RuntimeError: as Worker.evaluate does.
        """
        try:
            return await self._try(task, gone)
        except WorkerFailedError as error:
            if self._stopping:
                raise
            log(_logger, logging.WARNING, "evaluation tried again", code=error.code)
            self._metrics.retries.inc()
            return await self._try(task, gone)

    async def _try(self, task: Evaluation, gone: Departure) -> Evaluated:
        try:
            async with asyncio.timeout_at(task.ends):
                with task.stages.timed("wait"):
                    await unless(gone, self._turns.take(task.holder), give_up=self._turns.give_back)
        except TimeoutError:
            raise DeadlineError("the turn of this request did not come within the time that it gave") from None
        worker = min(self._idle, key=lambda idle: not idle.has(task.key_id))
        self._idle.remove(worker)
        self._metrics.key_loads.labels("hit" if worker.has(task.key_id) else "miss").inc()
        try:
            with task.stages.timed("worker"):
                result = await worker.evaluate(task.model, task.key_id, task.inputs, task.watch)
        except WorkerFailedError as error:
            self._metrics.worker_failures.labels(error.code).inc()
            raise
        else:
            self._pace.note(task.model, result.evaluation_seconds)
            task.stages.add("keys", result.keys_seconds)
            task.stages.add("evaluation", result.evaluation_seconds)
            return result
        finally:
            self._finish(worker)

    async def forget_gone_keys(self) -> None:
        """Have the workers let go of keys that nobody has registered any more: expanded, they are hundreds of MB.

        It does not wait for them. A worker that has something to do looks for such keys when it is done.
        """
        for worker in [worker for worker in self._idle if worker.holds_gone_keys]:
            if not self._turns.free:  # those that are idle yet are promised to requests
                return
            await self._turns.take("")  # comes at once
            self._idle.remove(worker)
            self._finish(worker)

    def _finish(self, worker: Worker) -> None:
        if worker.running and not worker.holds_gone_keys:
            self._give_back(worker)
        elif not self._stopping:
            task = asyncio.create_task(self._made_ready(worker))
            self._preparations.add(task)
            task.add_done_callback(self._preparations.discard)

    def _give_back(self, worker: Worker) -> None:
        self._idle.append(worker)
        self._turns.give_back()

    async def _made_ready(self, worker: Worker) -> None:
        try:
            if worker.running:
                await worker.forget_gone_keys()
            else:
                await worker.stop()
                await worker.start()
        except Exception as error:  # the next request that gets this worker starts it again
            log(_logger, logging.ERROR, "worker did not get ready", error=type(error).__name__)
        self._give_back(worker)

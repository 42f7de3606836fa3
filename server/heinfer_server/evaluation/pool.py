"""The worker processes: who evaluates what, and what happens when one dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import inf
from time import perf_counter

from heinfer.errors import DeadlineError, ServiceUnavailableError, WorkerFailedError
from heinfer_server.evaluation.disconnect import Disconnect, unless
from heinfer_server.evaluation.fair_queue import FairQueue, Turn
from heinfer_server.evaluation.latency import Latency
from heinfer_server.evaluation.progress import Watch
from heinfer_server.evaluation.tasks import Evaluated
from heinfer_server.evaluation.worker import Prefetched, Worker
from heinfer_server.telemetry.logs import log
from heinfer_server.telemetry.metrics import Metrics
from heinfer_server.telemetry.stages import Stages

_logger = logging.getLogger(__name__)

SHORT_SECONDS = 0.1
"""Of an evaluation: so long the next may wait for this one worker, instead of for the first that is free."""

STUCK_SECONDS = 1.0
"""After which it waits for any worker again."""


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


class WorkerPool:
    """A fixed number of workers: they serve holder after holder, if possible where the keys are loaded.

    A worker takes one evaluation; while it runs a short one, the next request may be prefetched to it, which saves a
    round trip of messages. If the first turns out long, the prefetched request moves to any free worker.
    """

    def __init__(self, workers: Sequence[Worker], metrics: Metrics, latency: Latency) -> None:
        self._metrics, self._latency = metrics, latency
        self._workers = list(workers)
        self._free = list(self._workers)
        self._queue = FairQueue(len(workers))
        self._stopping = False
        self._preparations: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> int:
        """How many workers can evaluate, now or when they are done with what they do."""
        return 0 if self._stopping else sum(not worker.failed for worker in self._workers)

    @property
    def pids(self) -> list[int | None]:
        """Ids of their processes, in the order of the workers; None for one that has none."""
        return [worker.pid for worker in self._workers]

    @property
    def busy(self) -> int:
        """How many have something to do."""
        return sum(worker.lock.locked() for worker in self._workers)

    @property
    def waiting(self) -> int:
        """How many evaluations wait for room in one."""
        return self._queue.waiting

    async def start(self) -> None:
        """Start all workers and wait until they have loaded the models, or the pool is stopped meanwhile.

        Raises:
            WorkerFailedError: when one cannot.
        """
        try:
            await asyncio.gather(*map(self._start, self._workers))
        except WorkerFailedError:
            if not self._stopping:
                raise

    async def stop(self) -> None:
        """End all workers, whatever they are doing."""
        self._stopping = True
        for preparation in self._preparations:
            preparation.cancel()
        await asyncio.gather(*self._preparations, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self._workers))

    async def evaluate(self, task: Evaluation, gone: Disconnect) -> Evaluated:
        """Evaluate one request in a worker, unless its client goes away before that.

        When the worker dies or hangs, it is tried once more, in another process.

        Raises:
            DisconnectedError: when its client goes away.
            DeadlineError: when its turn does not come in time.
            UnknownKeysError, WorkerFailedError, HeinferError, RuntimeError: as Worker.evaluate does.
        """
        try:
            return await self._evaluate(task, gone)
        except WorkerFailedError as error:
            if self._stopping:
                raise
            log(_logger, logging.WARNING, "evaluation tried again", code=error.code)
            self._metrics.retries.inc()
            return await self._evaluate(task, gone)

    async def _start(self, worker: Worker) -> None:
        async with worker.lock:  # or who tends it would take it for one that did not start
            await worker.start()

    async def _evaluate(self, task: Evaluation, gone: Disconnect) -> Evaluated:
        came = perf_counter()
        while True:
            with suppress(_StuckError):
                return await self._try(task, gone, came)

    async def _try(self, task: Evaluation, gone: Disconnect, came: float) -> Evaluated:
        turn = Turn(self._queue, task.holder, self._latency.seconds(task.manifest))
        async with _until(task.ends):
            await unless(gone, turn.take(), give_up=turn.give_up)
        worker = min(self._free, key=lambda room: (room.lock.locked(), not room.has(task.key_id)))
        self._free.remove(worker)
        self._metrics.key_loads.labels("hit" if worker.has(task.key_id) else "miss").inc()
        leaves_room = False
        sent = None if task.watch else worker.prefetch(task.manifest, task.key_id, task.inputs)
        try:
            async with _until(task.ends), _unless_stuck():
                await unless(gone, worker.lock.acquire(), give_up=worker.lock.release)
            try:
                task.stages.add("wait", perf_counter() - came)
                is_short = self._latency.seconds(task.manifest) <= SHORT_SECONDS
                leaves_room = is_short and worker.running and worker.has(task.key_id)
                if leaves_room:
                    self._give_back(worker)
                mine, sent = sent, None
                return await self._run_locked(task, worker, mine, turn)
            finally:
                worker.lock.release()
        finally:
            turn.settle(is_void=sent is None)  # what was sent ahead is evaluated all the same
            self._finish(worker, not leaves_room, sent)

    async def _run_locked(self, task: Evaluation, worker: Worker, sent: Prefetched | None, turn: Turn) -> Evaluated:
        if self._stopping:
            raise ServiceUnavailableError("the service ends: ask again when it has been started anew")
        self._count_idle_death(worker)
        try:
            with task.stages.timed("worker"):
                await worker.revive()  # which is not this holder's to pay
                with turn.running():
                    result = await worker.evaluate(task.manifest, task.key_id, task.inputs, task.watch, sent)
        except WorkerFailedError as error:
            self._metrics.worker_failures.labels(error.code).inc()
            raise
        self._metrics.evaluated(task.manifest)
        self._latency.note(task.manifest, result.evaluation_seconds)
        task.stages.add("keys", result.keys_seconds)
        task.stages.add("evaluation", result.evaluation_seconds)
        return result

    async def maintain(self) -> None:
        """Look after workers that have nothing to do, without waiting for them; the others do it when they are done.

        They let go of keys that nobody has registered any more, which are hundreds of MB expanded. Those that died
        idle, or did not start, are started again: a service that is not ready may get no request that would do it.
        """
        for worker in self._workers:
            if (worker.holds_gone_keys or not worker.running) and not worker.lock.locked():
                self._prepare(worker, gives_back=False)

    def _finish(self, worker: Worker, gives_back: bool, abandoned: Prefetched | None) -> None:
        if abandoned is not None or not worker.running or worker.holds_gone_keys:
            self._prepare(worker, gives_back, abandoned)
        elif gives_back:
            self._give_back(worker)

    def _give_back(self, worker: Worker) -> None:
        self._free.append(worker)
        self._queue.give_back()

    def _prepare(self, worker: Worker, gives_back: bool, abandoned: Prefetched | None = None) -> None:
        if not self._stopping:
            task = asyncio.create_task(self._made_ready(worker, gives_back, abandoned))
            self._preparations.add(task)
            task.add_done_callback(self._preparations.discard)
        elif gives_back:
            self._give_back(worker)

    async def _made_ready(self, worker: Worker, gives_back: bool, abandoned: Prefetched | None) -> None:
        try:
            async with worker.lock:
                if abandoned is not None:  # or the next would begin, by its own clock, when this is not over
                    await self._drained(worker, abandoned)
                self._count_idle_death(worker)
                await worker.revive()
                while worker.holds_gone_keys:
                    await worker.forget_gone_keys()
        except Exception as error:  # it is tried again: by the next request that gets this worker, or soon without one
            log(_logger, logging.ERROR, "worker did not get ready", error=type(error).__name__)
        finally:  # when the service ends, too: who waits is to hear of it
            if gives_back:
                self._give_back(worker)

    def _count_idle_death(self, worker: Worker) -> None:
        if worker.died_idle:  # who finds it so starts it again
            self._metrics.worker_failures.labels(WorkerFailedError.code).inc()

    async def _drained(self, worker: Worker, abandoned: Prefetched) -> None:
        try:
            await worker.drain_reply(abandoned)
        except WorkerFailedError as error:
            self._metrics.worker_failures.labels(error.code).inc()


class _StuckError(Exception):
    """The worker that was to be free soon is not."""


@asynccontextmanager
async def _unless_stuck() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(STUCK_SECONDS):
            yield
    except TimeoutError:
        raise _StuckError from None


@asynccontextmanager
async def _until(ends: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(ends):
            yield
    except TimeoutError:
        raise DeadlineError("the turn of this request did not come within the time that it gave") from None

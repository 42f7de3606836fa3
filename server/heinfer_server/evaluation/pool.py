"""The worker processes: who evaluates what and when, and what happens when one dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter

from heinfer.errors import WorkerFailedError
from heinfer_server.evaluation.disconnect import Disconnect, unless
from heinfer_server.evaluation.fair_queue import FairQueue, Turn
from heinfer_server.evaluation.latency import Latency
from heinfer_server.evaluation.prefetch import Lane, StuckError
from heinfer_server.evaluation.tasks import Evaluated
from heinfer_server.evaluation.worker import Evaluation, Worker
from heinfer_server.telemetry.logs import log
from heinfer_server.telemetry.metrics import Metrics

_logger = logging.getLogger(__name__)


class WorkerPool:
    """A fixed number of workers: they serve holder after holder, if possible where the keys are loaded.

    Attributes:
        lanes: one for each worker.
    """

    def __init__(self, workers: Sequence[Worker], metrics: Metrics, latency: Latency) -> None:
        self._metrics, self._latency = metrics, latency
        self.lanes = tuple(Lane(worker, metrics, latency, self._give_back) for worker in workers)
        self._free = list(self.lanes)
        self._queue = FairQueue(len(workers))
        self._stopping = False

    @property
    def ready(self) -> int:
        """How many workers can evaluate, now or when they are done with what they do."""
        return 0 if self._stopping else sum(not lane.worker.failed for lane in self.lanes)

    @property
    def pids(self) -> list[int | None]:
        """Ids of their processes, in the order of the workers; None for one that has none."""
        return [lane.worker.pid for lane in self.lanes]

    @property
    def busy(self) -> int:
        """How many have something to do."""
        return sum(lane.lock.locked() for lane in self.lanes)

    @property
    def waiting(self) -> int:
        """How many evaluations wait for room in one."""
        return self._queue.waiting

    @property
    def free(self) -> int:
        """For how many there is room."""
        return self._queue.free

    async def start(self) -> None:
        """Start all workers and wait until they have loaded the models, or the pool is stopped meanwhile.

        Raises:
            WorkerFailedError: when one cannot.
        """
        try:
            await asyncio.gather(*(lane.start() for lane in self.lanes))
        except WorkerFailedError:
            if not self._stopping:
                raise

    async def stop(self) -> None:
        """End all workers, whatever they are doing."""
        self._stopping = True
        await asyncio.gather(*(lane.close() for lane in self.lanes))

    async def evaluate(self, request: Evaluation, gone: Disconnect) -> Evaluated:
        """Evaluate one request in a worker, unless its client goes away before that.

        When the worker dies or hangs, it is tried once more, in another process.

        Raises:
            DisconnectedError: when its client goes away.
            DeadlineError: when its turn does not come in time.
            UnknownKeysError, WorkerFailedError, HeinferError, RuntimeError: as Worker.evaluate does.
        """
        try:
            return await self._evaluate(request, gone)
        except WorkerFailedError as error:
            if self._stopping:
                raise
            log(_logger, logging.WARNING, "evaluation tried again", code=error.code)
            self._metrics.retries.inc()
            return await self._evaluate(request, gone)

    async def maintain(self) -> None:
        """Look after workers that have nothing to do, without waiting for them; the others do it when they are done.

        They let go of keys that nobody has registered any more, which are hundreds of MB expanded. Those that died
        idle, or did not start, are started again: a service that is not ready may get no request that would do it.
        """
        for lane in self.lanes:
            lane.tend()

    async def _evaluate(self, request: Evaluation, gone: Disconnect) -> Evaluated:
        came = perf_counter()
        while True:
            with suppress(StuckError):
                return await self._try(request, gone, came)

    async def _try(self, request: Evaluation, gone: Disconnect, came: float) -> Evaluated:
        turn = Turn(self._queue, request.holder, self._latency.seconds(request.manifest))
        await unless(gone, turn.take(), turn.give_up, request.ends)
        lane = min(self._free, key=lambda lane: (lane.lock.locked(), request.key_id not in lane.worker.loaded))
        self._free.remove(lane)
        self._metrics.key_loads.labels("hit" if request.key_id in lane.worker.loaded else "miss").inc()
        try:
            result = await lane.evaluate(request, turn, gone, came)
        except WorkerFailedError as error:
            self._metrics.worker_failures.labels(error.code).inc()
            raise
        self._metrics.evaluated(request.manifest)
        self._latency.note(request.manifest, result.evaluation_seconds)
        request.stages.add("keys", result.keys_seconds)
        request.stages.add("evaluation", result.evaluation_seconds)
        return result

    def _give_back(self, lane: Lane) -> None:
        self._free.append(lane)
        self._queue.give_back()

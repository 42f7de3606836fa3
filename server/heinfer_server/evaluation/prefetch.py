"""A worker and the requests in the pipe to it: the one that it evaluates, and at most one that was sent ahead.

Where an evaluation takes 20 ms, messages to a client's next request and back take a fifth of the worker's time. So a
worker that begins a short evaluation has room for one more request, which is sent while the first is under way. That
there may be a second one nobody else knows: a worker answers in order, and the pool gives out rooms.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import TypeAlias

from heinfer.errors import ServiceUnavailableError, WorkerFailedError
from heinfer_server.evaluation.disconnect import Disconnect, unless
from heinfer_server.evaluation.fair_queue import Turn
from heinfer_server.evaluation.latency import Latency
from heinfer_server.evaluation.tasks import Evaluated, TaskFailure
from heinfer_server.evaluation.worker import Evaluation, Worker
from heinfer_server.telemetry.logs import log
from heinfer_server.telemetry.metrics import Metrics

_logger = logging.getLogger(__name__)

SHORT_SECONDS = 0.1
"""Of an evaluation: so long the next may wait for this one worker, instead of for the first that is free."""

STUCK_SECONDS = 1.0
"""After which it waits for any worker again."""

Prefetched: TypeAlias = asyncio.Future[Evaluated | TaskFailure]
"""What the process answers to a request that was sent ahead."""


class StuckError(Exception):
    """The worker that was to be free soon is not."""


class Lane:
    """One worker, and room for a request; for another while it evaluates a short one.

    Args:
        vacant: is called when there is room again.

    Attributes:
        lock: held by whoever has the worker do something.
    """

    def __init__(self, worker: Worker, metrics: Metrics, latency: Latency, vacant: Callable[[Lane], None]) -> None:
        self.worker = worker
        self.lock = asyncio.Lock()
        self._metrics, self._latency = metrics, latency
        self._vacant = vacant
        self._tending: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def start(self) -> None:
        """Start the worker; WorkerFailedError when it does not start."""
        async with self.lock:  # or who tends it would take it for one that did not start
            await self.worker.start()

    async def close(self) -> None:
        """End the worker, whatever it is doing, for good."""
        self._is_closed = True
        for task in self._tending:
            task.cancel()
        await asyncio.gather(*self._tending, return_exceptions=True)
        await self.worker.close()

    async def evaluate(self, request: Evaluation, turn: Turn, gone: Disconnect, came: float) -> Evaluated:
        """Evaluate a request in the room that it was given, and see that there is room again, at once or in the end.

        Args:
            turn: that it has; it is settled.
            came: when it began to wait.

        Raises:
            StuckError: when the evaluation before it takes long.
            DisconnectedError, DeadlineError: as `unless` does.
            UnknownKeysError, WorkerFailedError, HeinferError, RuntimeError: as Worker.evaluate does.
        """
        has_left = False
        ahead = self.prefetch(request)
        try:
            try:
                async with asyncio.timeout(STUCK_SECONDS):
                    await unless(gone, self.lock.acquire(), self.lock.release, request.ends)
            except TimeoutError:
                raise StuckError from None
            try:
                request.stages.add("wait", perf_counter() - came)
                is_short = self._latency.seconds(request.manifest) <= SHORT_SECONDS
                has_left = is_short and self.worker.running and request.key_id in self.worker.loaded
                if has_left:
                    self._vacant(self)
                mine, ahead = ahead, None
                return await self._run(request, turn, mine)
            finally:
                self.lock.release()
        finally:
            turn.settle(is_void=ahead is None)  # what was sent ahead is evaluated all the same
            if ahead is not None or not self.worker.running or self.worker.loaded.gone:
                self._prepare(ahead, vacates=not has_left)
            elif not has_left:
                self._vacant(self)

    def prefetch(self, request: Evaluation) -> Prefetched | None:
        """Send a request while another runs, so that it begins without a round trip of messages in between.

        Returns:
            None when nothing runs, or the request is watched, or its keys are not loaded, or no longer registered.
        """
        key_id, loaded = request.key_id, self.worker.loaded
        is_under_way = self.lock.locked() and self.worker.answering
        if request.watch or not is_under_way or key_id not in loaded or key_id in loaded.gone:
            return None
        return self.worker.begin(request)

    def tend(self) -> None:
        """Have a worker that has nothing to do let go of keys that are gone, or started again where it has ended.

        Who waits for the worker hears nothing of it; one that has something to do is tended when it is done.
        """
        if (self.worker.loaded.gone or not self.worker.running) and not self.lock.locked():
            self._prepare(None, vacates=False)

    async def _run(self, request: Evaluation, turn: Turn, ahead: Prefetched | None) -> Evaluated:
        if self._is_closed:
            raise ServiceUnavailableError("the service ends: ask again when it has been started anew")
        with request.stages.timed("worker"):
            await self._revive()  # which is not this holder's to pay
            with turn.running():
                if ahead is None or _is_lost(ahead):
                    return await self.worker.evaluate(request)
                return await self.worker.finish(request, ahead)

    async def _revive(self) -> None:
        if self.worker.died_idle:  # who finds it so starts it again
            self._metrics.worker_failures.labels(WorkerFailedError.code).inc()
        await self.worker.revive()

    def _prepare(self, abandoned: Prefetched | None, *, vacates: bool) -> None:
        if not self._is_closed:
            task = asyncio.create_task(self._made_ready(abandoned, vacates))
            self._tending.add(task)
            task.add_done_callback(self._tending.discard)
        elif vacates:
            self._vacant(self)

    async def _made_ready(self, abandoned: Prefetched | None, vacates: bool) -> None:
        try:
            async with self.lock:
                if abandoned is not None:  # or the next would begin, by its own clock, when this is not over
                    await self._drain(abandoned)
                await self._revive()
                while self.worker.loaded.gone:
                    await self.worker.forget_gone_keys()
        except Exception as error:  # it is tried again: by the next request that gets this worker, or soon without one
            log(_logger, logging.ERROR, "worker did not get ready", error=type(error).__name__)
        finally:  # when the service ends, too: who waits is to hear of it
            if vacates:
                self._vacant(self)

    async def _drain(self, abandoned: Prefetched) -> None:
        """Hear out what nobody waits for any more."""
        try:
            if self.worker.running and not _is_lost(abandoned):
                await self.worker.hear(abandoned)
        except WorkerFailedError as error:
            self._metrics.worker_failures.labels(error.code).inc()


def _is_lost(answer: Prefetched) -> bool:
    """Whether the process ended before it answered: then the request was not begun, or it will never be known."""
    return answer.done() and answer.exception() is not None

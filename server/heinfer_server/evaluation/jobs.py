"""Jobs: evaluations begun by one request and fetched by later ones, without a connection that stays open."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from heinfer.errors import (
    CancelledError,
    HeinferError,
    IdempotencyConflictError,
    JobNotDoneError,
    UnknownJobError,
)
from heinfer_server.evaluation.disconnect import Disconnect, DisconnectedError
from heinfer_server.evaluation.progress import Watch
from heinfer_server.telemetry.logs import log

_logger = logging.getLogger(__name__)

JOBS_OF_A_TENANT = 64
"""Those that are over and kept, their results among them; the oldest go first."""

JOBS_KEPT = 1024

EVENT_SECONDS = 0.25
"""Between two looks at the progress of a job."""

QUIET_SECONDS = 15.0
"""After which those who follow a job hear that it is still there; proxies end what is silent for a minute."""

FETCH_SECONDS = 3.0
"""That a service which ends gives the senders of jobs to come for their results."""


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER = frozenset({State.DONE, State.FAILED, State.CANCELLED})


@dataclass(frozen=True)
class Result:
    """What a job comes to.

    Attributes:
        frames: of outputs.
        timing: the Server-Timing header that would have come with them.
        manifest: digest of that of the version which the job was accepted for.
    """

    frames: bytes
    timing: str
    manifest: str


Work = Callable[[Watch, Disconnect], Awaitable[Result]]
"""Evaluates; is told by the second argument when it need not begin any more."""


@dataclass
class Job:
    """One evaluation.

    Attributes:
        id: as hard to guess as a key.
        tenant: whose it is.
        model: name of what it evaluates.
        watch: how far it has come.
        withdrawn: done when nobody wants it any more.
        result, error: one of them, when it is over and was not cancelled.
        is_fetched: whether its result has been sent.
        touched: when it was over, by the clock of the event loop's time.
        idempotency_key: under which it was begun; empty for none.
        digest: of the request that began it, where there is such a key.
    """

    id: str
    tenant: str
    model: str
    watch: Watch
    withdrawn: Disconnect
    result: Result | None = None
    error: HeinferError | None = None
    is_over: bool = False
    is_fetched: bool = False
    touched: float = 0.0
    idempotency_key: str = ""
    digest: bytes = b""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def state(self) -> State:
        if not self.is_over:
            return State.RUNNING if self.watch.is_begun else State.WAITING
        if self.watch.is_cancelled:
            return State.CANCELLED
        return State.DONE if self.error is None else State.FAILED

    @property
    def progress(self) -> float:
        """In 0..1."""
        return 1.0 if self.state is State.DONE else self.watch.fraction

    def outcome(self) -> Result:
        """The result.

        Raises:
            JobNotDoneError: when it is not over.
            CancelledError: when it was cancelled.
            HeinferError: what it failed with.
        """
        if not self.is_over:
            raise JobNotDoneError("the job is not done: ask for its state, or for its events")
        if self.watch.is_cancelled:
            raise CancelledError("the job was cancelled")
        if self.error is not None:
            raise _bare(self.error)
        assert self.result is not None
        return self.result


class Jobs:
    """Jobs by their ids. Those that are over are kept for a while."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._jobs: dict[str, Job] = {}

    def __iter__(self) -> Iterator[Job]:
        """All that there are now."""
        return iter(tuple(self._jobs.values()))

    @property
    def under_way(self) -> int:
        """How many are not over."""
        return sum(not job.is_over for job in self)

    def find_again(self, tenant: str, idempotency_key: str, *request: bytes) -> Job | None:
        """The job that the same request has begun under the same key; None when there is none (any more).

        Raises:
            IdempotencyConflictError: when another request has.
        """
        self.evict_expired()
        for job in self:
            if (job.tenant, job.idempotency_key) == (tenant, idempotency_key):
                if job.digest == _digest(request):
                    return job
                raise IdempotencyConflictError("another request has used this Idempotency-Key: make a new one for each")
        return None

    def begin(
        self, tenant: str, model: str, work: Work, place: ExitStack, idempotency_key: str, *request: bytes
    ) -> Job:
        """Begin a job.

        Args:
            work: is done in a task of its own.
            place: is closed when the job is over.
            idempotency_key: under which the request is found again; none when empty.
            request: all of it.
        """
        self.evict_expired()
        withdrawn: Disconnect = asyncio.get_running_loop().create_future()
        job = Job(secrets.token_hex(16), tenant, model, Watch(), withdrawn, idempotency_key=idempotency_key)
        if idempotency_key:
            job.digest = _digest(request)
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._do(job, work, place))
        return job

    def get(self, tenant: str, job_id: str, models: Set[str] | None = None) -> Job:
        """A job of the tenant, for one of these models (None: any); UnknownJobError when there is none under the id."""
        self.evict_expired()
        job = self._jobs.get(job_id)
        if job is None or job.tenant != tenant or (models is not None and job.model not in models):
            raise UnknownJobError("there is no job under this id (any more): begin it again")
        return job

    def cancel(self, tenant: str, job_id: str, models: Set[str] | None = None) -> None:
        """Have a job end soon, and forget it; raises what `get` does."""
        job = self.get(tenant, job_id, models)
        self._withdraw(job)
        del self._jobs[job.id]

    def purge(self, tenants: Collection[str]) -> None:
        """Have all jobs of tenants end soon, and forget them, their results and their idempotency keys."""
        for job in self:
            if job.tenant in tenants:
                self._withdraw(job)
                del self._jobs[job.id]

    async def drain(self, seconds: float) -> None:
        """Wait for running jobs, and shortly for their results to be fetched, at most so many seconds."""
        ends = self._clock() + seconds
        while self._clock() < ends and any(map(self._is_awaited, self)):
            await asyncio.sleep(EVENT_SECONDS / 5)

    async def cancel_all(self) -> None:
        """Cancel all running jobs, and wait up to FETCH_SECONDS for them to end."""
        tasks = [job.task for job in self if job.task is not None and not job.is_over]
        for job in self:
            self._withdraw(job)
        if tasks:
            await asyncio.wait(tasks, timeout=FETCH_SECONDS)

    def _is_awaited(self, job: Job) -> bool:
        return not job.is_over or (not job.is_fetched and self._clock() - job.touched < FETCH_SECONDS)

    def evict_expired(self) -> None:
        """Drop finished jobs that are too old or too many, the oldest first."""
        now = self._clock()
        over = [job for job in self if job.is_over]
        later_of_tenant: Counter[str] = Counter()
        for later, job in enumerate(sorted(over, key=lambda job: job.touched, reverse=True)):
            is_old = now - job.touched > self._seconds
            if is_old or later_of_tenant[job.tenant] >= JOBS_OF_A_TENANT or later >= JOBS_KEPT:
                del self._jobs[job.id]
            later_of_tenant[job.tenant] += 1

    async def _do(self, job: Job, work: Work, place: ExitStack) -> None:
        with place:
            try:
                job.result = await work(job.watch, job.withdrawn)
            except DisconnectedError:  # it was withdrawn
                pass
            except HeinferError as error:
                job.error = _bare(error)
            except Exception:
                _logger.exception("unexpected error")
                job.error = HeinferError("the service failed")
            job.is_over, job.touched = True, self._clock()
        log(_logger, logging.INFO, "job over", state=job.state, code=job.error.code if job.error else None)

    @staticmethod
    def _withdraw(job: Job) -> None:
        if not job.is_over:
            job.watch.cancel()
            if not job.withdrawn.done():
                job.withdrawn.set_result(None)


async def progress_of(job: Job) -> AsyncIterator[bool]:
    """Yield True at once, at every change of state or progress, and a last time when the job is finished.

    False whenever nothing has changed for QUIET_SECONDS.
    """
    last: tuple[State, float] | None = None
    spoke = time.monotonic()
    while True:
        now = job.state, job.progress
        if now != last or time.monotonic() - spoke >= QUIET_SECONDS:
            is_news, last, spoke = now != last, now, time.monotonic()
            yield is_news
        if now[0] in OVER:
            return
        assert job.task is not None
        await asyncio.wait({job.task}, timeout=EVENT_SECONDS)


def _bare(error: HeinferError) -> HeinferError:
    """An error that is kept: without the frames that it came through, which hold the request's body."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _digest(request: tuple[bytes, ...]) -> bytes:
    hashed = sha256()
    for part in request:
        hashed.update(len(part).to_bytes(8, "little"))
        hashed.update(part)
    return hashed.digest()

"""Which requests are tried again, when, and how often: the one policy of all that a client asks for.

All that is asked is idempotent. Tried again is what no answer came to, what a proxy refused while the service was away,
and what the service itself refuses for now; never what it says of the request or of its evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from time import monotonic
from weakref import WeakSet

from heinfer.errors import BusyError, InsecureConnectionError, ServiceError, ServiceUnavailableError
from heinfer.system import begin_in_child
from heinfer_client.messages import Flow, Pause, Reply, Request, passing_refusal

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0
"""Between two tries that nobody says anything of, in seconds; each pause is twice the one before."""

TRIES = 10
"""How often in a row nothing may come of a request before what it is for is given up: after 20 to 40 seconds."""

FIRST_TRIES = 5
"""The same while nothing has ever answered: after 2 to 4 seconds, for the address may be wrong."""

CAPACITY = 40.0
"""Retries that a client has at first, and at most."""

EARNED_BY_ANSWER = 0.1
EARNED_BY_SECOND = 0.5
"""Of a retry. On the long run a client adds a tenth to what it asks of a sick service, and thirty requests a minute."""


class Budget:
    """How many more requests a client may try again: a bucket of tokens, which all its threads share.

    Attributes:
        is_answered: whether there has ever been an answer.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._tokens = CAPACITY
        self._counted = clock()
        self.is_answered = False
        _BUDGETS.add(self)

    def take(self) -> bool:
        """Whether there is one more retry, which is counted then."""
        with self._lock:
            self._add(0.0)
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def earn(self) -> None:
        """Count an answer."""
        with self._lock:
            self.is_answered = True
            self._add(EARNED_BY_ANSWER)

    def unlock(self) -> None:
        """Forget who has the lock: in a process that has been forked nobody gives it back."""
        self._lock = Lock()

    def _add(self, earned: float) -> None:
        now = self._clock()
        self._tokens = min(CAPACITY, self._tokens + earned + EARNED_BY_SECOND * (now - self._counted))
        self._counted = now


_BUDGETS: WeakSet[Budget] = WeakSet()


def _unlock_all() -> None:
    for budget in _BUDGETS:
        budget.unlock()


begin_in_child(_unlock_all)


@dataclass(frozen=True)
class Patience:
    """How long what is asked may take, in seconds, and whose budget its retries are from."""

    seconds: float
    budget: Budget


class Tries:
    """The tries of one thing that is asked for, in one request or in several.

    Attributes:
        left: seconds that are left for it.
    """

    def __init__(self, patience: Patience) -> None:
        self._budget = patience.budget
        self._ends = monotonic() + patience.seconds
        self._failures = 0
        self._pauses = 0

    @property
    def left(self) -> float:
        return self._ends - monotonic()

    def progressed(self) -> None:
        """What has failed so far counts no more."""
        self._failures = self._pauses = 0

    def end(self) -> None:
        """No more of them."""
        self._ends = monotonic()

    def attempt(self, request: Request) -> Flow[Reply]:
        """Ask once; returns what is no refusal that passes, and raises what is one."""
        reply = yield replace(request, seconds=min(request.seconds, self.left))
        assert reply is not None
        refusal = passing_refusal(reply)
        if refusal is not None:
            raise refusal
        self._budget.earn()
        return reply

    def pause_after(self, error: ServiceError) -> Pause:
        """The pause before the next try; raises the error, which then says so, when there is none.

        A service that is busy is well, and says when it wants to be asked: that costs time only.
        """
        if isinstance(error, InsecureConnectionError):
            raise error
        is_failure = not isinstance(error, BusyError)
        self._failures += is_failure
        self._pauses += 1
        wanted = error.retry_after if isinstance(error, ServiceUnavailableError) else None
        seconds = pause_before_retry(self._pauses - 1, wanted)
        most = TRIES if self._budget.is_answered or error.status else FIRST_TRIES
        if self._failures >= most:
            raise _noted(error, f"given up after {most} tries")
        if self.left <= 0:
            raise error
        if seconds >= self.left:
            raise _noted(error, f"asked {_times(self._pauses)}: the next time would be after the timeout")
        if is_failure and not self._budget.take():
            raise _noted(error, "not asked again: too much that this client has asked of late was in vain")
        return Pause(seconds)


def ask(request: Request, tries: Tries) -> Flow[Reply]:
    """Ask until there is an answer that would be the same the next time, and return it.

    Raises:
        ServiceUnavailableError: when there is none in time, or nothing has come of several tries in a row.
    """
    while True:
        try:
            return (yield from tries.attempt(request))
        except ServiceUnavailableError as error:
            pause = tries.pause_after(error)
        yield pause


def pause_before_retry(pauses: int, wanted: float | None) -> float:
    """Seconds to wait: at least what the service wants, and by chance more, so that clients do not return together.

    Args:
        pauses: how many there were before; each doubles the next.
    """
    backoff: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(pauses, 10))  # no power that is no float any more
    return max(wanted or 0.0, backoff / 2) + random.uniform(0, backoff / 2)  # noqa: S311 - no secret


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _noted(error: ServiceError, note: str) -> ServiceError:
    error.args = (f"{error} ({note})",)
    return error

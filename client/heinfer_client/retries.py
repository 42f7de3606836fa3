"""Which requests are tried again, when, and how often: the one policy of all that a client asks for.

All that is asked is idempotent. Tried again is what no answer came to, what a proxy refused while the service was away,
and what the service itself refuses for now; never what it says of the request or of its evaluation.
"""

from __future__ import annotations

import random
from dataclasses import replace
from time import monotonic

from heinfer.errors import BusyError, InsecureConnectionError, ServiceError, ServiceUnavailableError
from heinfer_client.connections import Connections
from heinfer_client.messages import Reply, Request, passing_refusal

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0
"""Between two tries that nobody says anything of, in seconds; each pause is twice the one before."""

TRIES = 10
"""How often in a row nothing may come of a request before what it is for is given up: after 20 to 40 seconds."""

FIRST_TRIES = 5
"""The same while nothing has ever answered: after 2 to 4 seconds, for the address may be wrong."""


class Tries:
    """The tries of one thing that is asked for, in one request or in several.

    Args:
        seconds: that it may take in all, pauses included; by default those of the connections.

    Attributes:
        left: seconds that are left for it.
    """

    def __init__(self, connections: Connections, seconds: float | None = None) -> None:
        self._connections = connections
        self._budget = connections.budget
        self._ends = monotonic() + (connections.timeout if seconds is None else seconds)
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

    async def ask(self, request: Request) -> Reply:
        """Ask until there is an answer that would be the same the next time, and return it.

        Raises:
            ServiceUnavailableError: when there is none in time, or nothing has come of several tries in a row.
        """
        while True:
            try:
                return await self.attempt(request)
            except ServiceUnavailableError as error:
                await self.pause_after(error)

    async def attempt(self, request: Request) -> Reply:
        """Ask once; returns what is no refusal that passes, and raises what is one."""
        reply = await self._connections.send(replace(request, seconds=min(request.seconds, self.left)))
        refusal = passing_refusal(reply)
        if refusal is not None:
            raise refusal
        self._budget.earn()
        return reply

    async def pause_after(self, error: ServiceError) -> None:
        """Wait before the next try; raises the error, which then says so, when there is none.

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
        await self._connections.pause(seconds)


def pause_before_retry(pauses: int, wanted: float | None) -> float:
    """Seconds to wait: at least what the service wants, and by chance more, so that clients do not return together.

    Args:
        pauses: how many there were before; each doubles the next.
    """
    backoff: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(pauses, 10))  # 2**n overflows a float
    return max(wanted or 0.0, backoff / 2) + random.uniform(0, backoff / 2)  # noqa: S311 - no secret


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _noted(error: ServiceError, note: str) -> ServiceError:
    error.args = (f"{error} ({note})",)
    return error

"""Fair queue: a free slot goes to the waiting holder whose evaluations have cost least so far."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from time import perf_counter

MOST_AHEAD_SECONDS = 60.0
"""Most that one holder is charged ahead of the least charged waiting holder; more is forgiven."""


@dataclass(frozen=True)
class _Waiting:
    turn: asyncio.Future[None]
    seconds: float


class FairQueue:
    """A number of slots; a free one goes to the waiting holder that has been charged least.

    Start-time fair queueing (Goyal, Vin and Cheng, 1996): every holder has a virtual time, to which the seconds of its
    turns are added. Virtual times are compared among waiting holders only and never saved up: a holder that is new, or
    returns, starts at the virtual time of the last turn. So two holders that always wait get equal seconds within a few
    turns, however long those are, and every wait is bounded.

    Attributes:
        free: slots that can be taken at once.
    """

    def __init__(self, count: int) -> None:
        self.free = count
        self._waiting: OrderedDict[str, deque[_Waiting]] = OrderedDict()  # the last who had a turn is the last
        self._under_way: Counter[str] = Counter()
        self._had: dict[str, float] = {}  # of those who have something under way, or have had more than the last one
        self._last = 0.0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(turns) for turns in self._waiting.values())

    async def take(self, holder: str, seconds: float = 0.0) -> None:
        """Wait for a slot, charging the expected seconds; afterwards call settle and give_back, in either order."""
        if self.free:  # then nobody waits
            self.free -= 1
            self._begin(holder, seconds)
            return
        waiting = _Waiting(asyncio.get_running_loop().create_future(), seconds)
        self._waiting.setdefault(holder, deque()).append(waiting)
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if waiting.turn.cancelled():
                self._leave(holder, waiting)
            else:  # it came in the same moment
                self.settle(holder, -seconds)
                self.give_back()
            raise

    def settle(self, holder: str, seconds: float = 0.0) -> None:
        """Correct the charge of a finished turn by the seconds beyond the expected ones; negative for a shorter one."""
        self._had[holder] = min(self._had[holder] + seconds, self._last + MOST_AHEAD_SECONDS)
        self._under_way[holder] -= 1
        self._forget_those_even()

    def give_back(self) -> None:
        """Hand the slot to the oldest waiter of the least charged holder; among equals, of the one waiting longest."""
        while self._waiting:
            holder = min(self._waiting, key=self._next_begins)
            turns = self._waiting.pop(holder)
            waiting = turns.popleft()
            if turns:
                self._waiting[holder] = turns
            if not waiting.turn.done():
                self._begin(holder, waiting.seconds)
                waiting.turn.set_result(None)
                return
        self.free += 1

    def _next_begins(self, holder: str) -> float:
        return max(self._last, self._had.get(holder, self._last))

    def _begin(self, holder: str, seconds: float) -> None:
        self._last = self._next_begins(holder)
        self._had[holder] = self._last + seconds
        self._under_way[holder] += 1
        self._forget_those_even()

    def _forget_those_even(self) -> None:
        """Drop holders that are charged no more than a new one; all of them when nothing runs or waits."""
        self._under_way += Counter()  # drops who has nothing
        least = self._last if self._under_way or self._waiting else inf
        self._had = {one: had for one, had in self._had.items() if one in self._under_way or had > least}

    def _leave(self, holder: str, waiting: _Waiting) -> None:
        turns = self._waiting.get(holder, deque())
        if waiting in turns:
            turns.remove(waiting)
        if not turns:
            self._waiting.pop(holder, None)


class Turn:
    """One turn of a holder and its cost, measured by the service: a worker may have been taken over.

    Loading keys counts, and failed evaluations count: they occupied the slot as well.
    """

    def __init__(self, queue: FairQueue, holder: str, expected: float) -> None:
        self._queue, self._holder, self._expected = queue, holder, expected
        self._spent: float | None = None

    async def take(self) -> None:
        await self._queue.take(self._holder, self._expected)

    def give_up(self) -> None:
        """Return the slot of a request that was abandoned meanwhile."""
        self.settle(is_void=True)
        self._queue.give_back()

    @contextmanager
    def running(self) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self._spent = perf_counter() - started

    def settle(self, *, is_void: bool) -> None:
        """Charge the measured seconds; when nothing was measured, none if the turn is void, else the expected ones."""
        spent = self._spent
        if spent is None:
            spent = 0.0 if is_void else self._expected
        self._queue.settle(self._holder, spent - self._expected)

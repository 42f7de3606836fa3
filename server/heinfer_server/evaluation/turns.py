"""Turns for those who wait, by what each has cost: who asks for much does not keep who asks for little from its own."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from time import perf_counter

MOST_AHEAD_SECONDS = 60.0
"""That one holder has had more than who has had least of those who wait: what it took beyond is not held against it."""


@dataclass(frozen=True)
class _Waiting:
    turn: asyncio.Future[None]
    seconds: float


class Turns:
    """A number of turns that can be taken at the same time; of those who wait, that holder is next which has had least.

    What a holder has had is a time of its own, to which the seconds of its turns are added: start-time fair queueing
    (Goyal, Vin and Cheng, 1996). It is compared among those who wait together and never saved up: who comes back, or
    comes first, has had as much as the one whose turn it last was. So of two who always wait, none gets more than the
    other by more than a few turns, however long those are, and whoever waits comes after a bounded time.

    Attributes:
        free: turns that can be taken at once.
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
        """Wait for a turn that is expected to take so long; it has to be settled and given back, in either order."""
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
        """A turn is over, and has taken so much longer than was expected, or shorter where that is below nothing."""
        self._had[holder] = min(self._had[holder] + seconds, self._last + MOST_AHEAD_SECONDS)
        self._under_way[holder] -= 1
        self._forget_those_even()

    def give_back(self) -> None:
        """Pass a turn on to the first who waits of the holder that has had least, and among equals waits longest."""
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
        """Who has had no more than a newcomer is one; all are when nobody wants anything any more."""
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
    """One turn of a holder, and what it cost, by the service's own clock: a worker may have been taken over.

    Loading of keys counts, and so does what failed: it kept others from their turns as long.
    """

    def __init__(self, turns: Turns, holder: str, expected: float) -> None:
        self._turns, self._holder, self._expected = turns, holder, expected
        self._spent: float | None = None

    async def take(self) -> None:
        await self._turns.take(self._holder, self._expected)

    def give_up(self) -> None:
        """It came when nobody wanted it any more."""
        self.settle(is_void=True)
        self._turns.give_back()

    @contextmanager
    def running(self) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self._spent = perf_counter() - started

    def settle(self, *, is_void: bool) -> None:
        """It is over; when nothing ran that anybody heard of, it cost nothing, if it is void, or what was expected."""
        spent = self._spent
        if spent is None:
            spent = 0.0 if is_void else self._expected
        self._turns.settle(self._holder, spent - self._expected)

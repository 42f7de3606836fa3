"""Concurrency limit for one kind of request."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from heinfer.errors import BusyError


class ConcurrencyLimit:
    """Admits at most `limit` requests, `share` of them of one holder; refuses others before their body is read.

    Attributes:
        holders: how many each has inside; who has none is not there.
    """

    def __init__(self, limit: int, share: int) -> None:
        self._limit = limit
        self._share = share
        self.holders: Counter[str] = Counter()

    @property
    def inside(self) -> int:
        """Admitted requests."""
        return self.holders.total()

    @contextmanager
    def entered(self, holder: str) -> Iterator[None]:
        """Hold a slot; BusyError when none is free, or the holder has its share."""
        if not self._has_room(holder):
            raise self._refusal()
        self.holders[holder] += 1
        try:
            yield
        finally:
            self._leave(holder)

    def _has_room(self, holder: str) -> bool:
        return self.inside < self._limit and self.holders[holder] < self._share

    def _refusal(self) -> BusyError:
        if self.inside >= self._limit:
            return BusyError(f"{self._limit} such requests are under way: try again later")
        return BusyError(f"{self._share} of your requests are under way: wait for their answers")

    def _leave(self, holder: str) -> None:
        self.holders[holder] -= 1
        self.holders += Counter()  # drops who holds nothing


class WaitingLimit(ConcurrencyLimit):
    """A concurrency limit that lets requests wait for a slot, holder after holder, their bodies unread.

    For short requests: clients of one tenant would otherwise be refused by chance and pause for a second.
    """

    def __init__(self, limit: int, share: int, seconds: float) -> None:
        super().__init__(limit, share)
        self._seconds = seconds
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # none of them has room

    @asynccontextmanager
    async def entered_in_turn(self, holder: str) -> AsyncIterator[None]:
        """Hold a slot; BusyError when none becomes free in time."""
        if self._has_room(holder):
            self.holders[holder] += 1
        else:
            await self._wait(holder)
        try:
            yield
        finally:
            self._leave(holder)

    async def _wait(self, holder: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(holder, deque()).append(turn)
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except (asyncio.CancelledError, TimeoutError) as error:
            if turn.cancelled():
                self._go(holder, turn)
            else:  # it came in the same moment
                self._leave(holder)
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise

    def _leave(self, holder: str) -> None:
        super()._leave(holder)
        for other in [other for other in self._waiting if self._has_room(other)]:
            turn = self._waiting[other][0]
            self._go(other, turn)
            if other in self._waiting:
                self._waiting.move_to_end(other)
            if not turn.done():
                self.holders[other] += 1
                turn.set_result(None)
                return

    def _go(self, holder: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(holder, deque())
        if turn in turns:
            turns.remove(turn)
        if not turns:
            self._waiting.pop(holder, None)

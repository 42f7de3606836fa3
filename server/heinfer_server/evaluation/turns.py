"""Turns for those who wait: in rotation, so that who asks for many does not keep who asks for one from its own."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque


class Turns:
    """A number of turns that can be taken at the same time; those who wait for one get it holder after holder.

    Attributes:
        free: turns that can be taken at once.
    """

    def __init__(self, count: int) -> None:
        self.free = count
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(turns) for turns in self._waiting.values())

    async def take(self, holder: str) -> None:
        """Wait for a turn; it has to be given back."""
        if self.free:  # then nobody waits
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(holder, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(holder, turn)
            else:  # it came in the same moment
                self.give_back()
            raise

    def give_back(self) -> None:
        """Pass a turn on to the first who waits of the holder whose last turn is longest ago."""
        while self._waiting:
            holder, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[holder] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def _leave(self, holder: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(holder, deque())
        if turn in turns:
            turns.remove(turn)
        if not turns:
            self._waiting.pop(holder, None)

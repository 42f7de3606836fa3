"""How much of something one tenant may have in a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil

from heinfer.errors import RateLimitedError

_SECONDS = 60.0
_MOST_HOLDERS = 10_000


class Rate:
    """A budget for each holder that fills up within a minute; who has spent it waits until there is one again.

    What is spent may exceed what is left, because the length of a body may be known only at its end: then the wait is
    longer.
    """

    def __init__(self, a_minute: float, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = a_minute
        self._what = what
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def require(self, holder: str) -> None:
        """Raise RateLimitedError, which says when to come back, when nothing is left."""
        left = self._now(holder)
        if left < 1:
            text = f"you may have {self._most:.0f} {self._what} a minute: come back later"
            raise RateLimitedError(text, retry_after=max(1, ceil((1 - left) * _SECONDS / self._most)))

    def spend(self, holder: str, amount: float) -> None:
        """Take from the budget, below zero if need be."""
        left = self._now(holder) - amount
        if len(self._left) >= _MOST_HOLDERS:
            self._left = {other: entry for other, entry in self._left.items() if self._now(other) < self._most}
        self._left[holder] = left, self._clock()

    def _now(self, holder: str) -> float:
        left, then = self._left.get(holder, (self._most, 0.0))
        return min(self._most, left + (self._clock() - then) * self._most / _SECONDS)

"""A bound on how many requests of a kind are in the house."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from heinfer.errors import BusyError


class Gate:
    """Lets at most `limit` in at a time, and `share` of one holder; refuses more, so that their bodies have a bound.

    Attributes:
        inside: how many are in.
    """

    def __init__(self, limit: int, share: int) -> None:
        self._limit = limit
        self._share = share
        self._holders: Counter[str] = Counter()

    @property
    def inside(self) -> int:
        return self._holders.total()

    @contextmanager
    def entered(self, holder: str) -> Iterator[None]:
        """Be inside; BusyError when it is full, or when the holder has its share."""
        if self.inside >= self._limit:
            raise BusyError(f"{self._limit} such requests are under way: try again later")
        if self._holders[holder] >= self._share:
            raise BusyError(f"{self._share} of your requests are under way: wait for their answers")
        self._holders[holder] += 1
        try:
            yield
        finally:
            self._holders[holder] -= 1
            self._holders += Counter()  # drops who holds nothing

"""A bound on how many requests of a kind are in the house."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heinfer.errors import ServiceUnavailableError


class Gate:
    """Lets at most `limit` in at a time; more are refused, so that their bodies cannot fill the memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside; ServiceUnavailableError when it is full."""
        if self._inside >= self._limit:
            raise ServiceUnavailableError(f"{self._limit} such requests are under way: try again later")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

"""How much a client may try again in all: what keeps many clients from wearing a sick service out."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic

from heinfer.system import Renewed

CAPACITY = 40.0
"""Retries that a client has at first, and at most."""

EARNED_BY_ANSWER = 0.1
EARNED_BY_SECOND = 0.5
"""Of a retry. On the long run a client adds a tenth to what it asks of a sick service, and thirty requests a minute."""


class Budget(Renewed):
    """How many more requests a client may try again: a bucket of tokens, which all its threads share.

    Attributes:
        is_answered: whether there has ever been an answer.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._tokens = CAPACITY
        self._counted = clock()
        self.is_answered = False
        super().__init__()

    def begin(self) -> None:
        """Forget who has the lock, as in a child."""
        self._lock = Lock()

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

    def _add(self, earned: float) -> None:
        now = self._clock()
        self._tokens = min(CAPACITY, self._tokens + earned + EARNED_BY_SECOND * (now - self._counted))
        self._counted = now

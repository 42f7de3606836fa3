"""How many lines of one kind the log takes; what is more is counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

MOST_KINDS = 10_000
"""That are told apart; more share what one may have."""

_MINUTE = 60.0
_EVENT_LENGTH = 80
_READ = 400
_PARTICULARS = re.compile(r"0x[0-9a-f]+|-?\d+")


class Kind(NamedTuple):
    """What lines have in common that repeat each other.

    Attributes:
        told: facts that they are told apart by besides.
    """

    level: str
    logger: str
    event: str
    tenant: str = ""
    told: tuple[str | int | float | None, ...] = ()


_OTHERS = Kind("info", __name__, "other kinds")


@dataclass(frozen=True)
class Repeated:
    """Lines of a kind that the log does not have.

    Attributes:
        since: when the first of them came, by the clock that `passes` was given.
    """

    kind: Kind
    lines: int
    since: float


@dataclass
class _Budget:
    left: float
    then: float
    left_out: int = 0
    since: float = 0.0


class Repetitions:
    """A budget of lines for each kind, so that a flood of one takes nothing from another.

    Args:
        at_once: lines of a kind that may come at once.
        a_minute: lines of a kind that the budget fills up by.
    """

    def __init__(self, at_once: float, a_minute: float) -> None:
        self._most, self._a_second = at_once, a_minute / _MINUTE
        self._budgets: dict[Kind, _Budget] = {}

    def passes(self, kind: Kind, now: float) -> bool:
        """Whether the log takes a line; one that it does not take is counted."""
        budget = self._budget(kind, now)
        budget.left = min(self._most, budget.left + (now - budget.then) * self._a_second)
        budget.then = now
        if budget.left >= 1:
            budget.left -= 1
            return True
        if not budget.left_out:
            budget.since = now
        budget.left_out += 1
        return False

    def take(self) -> Iterator[Repeated]:
        """What was left out since the last call."""
        for kind, budget in list(self._budgets.items()):
            if budget.left_out:
                lines, budget.left_out = budget.left_out, 0
                yield Repeated(kind, lines, budget.since)

    def _budget(self, kind: Kind, now: float) -> _Budget:
        if kind not in self._budgets:
            if len(self._budgets) >= MOST_KINDS:
                self._forget_the_full(now)
            if len(self._budgets) >= MOST_KINDS:
                kind = _OTHERS
        return self._budgets.setdefault(kind, _Budget(self._most, now))

    def _forget_the_full(self, now: float) -> None:
        """Those who have all of their budget again need no entry."""
        self._budgets = {
            kind: budget
            for kind, budget in self._budgets.items()
            if budget.left_out or budget.left + (now - budget.then) * self._a_second < self._most
        }


def bare(message: object) -> str:
    """What is common to the messages of others, whose text has addresses of objects, numbers, and more lines."""
    text = message if isinstance(message, str) else type(message).__name__
    return _PARTICULARS.sub("", text.partition("\n")[0][:_READ])[:_EVENT_LENGTH]

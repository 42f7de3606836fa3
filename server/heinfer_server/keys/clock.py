"""The time that stored keys are dated and expire by, which no step of the wall clock changes while the service runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from heinfer_server.telemetry.logs import log

_logger = logging.getLogger(__name__)

REMINDER_SECONDS = 3600.0
_WAY_OUT = (
    "no keys expire until the clock is plausible again: set it right, or, if it is, run "
    "`heinfer confirm-clock --key-folder FOLDER`"
)


def _passed() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # a machine that sleeps grows older, too


@dataclass(frozen=True)
class Clocks:
    """Where time comes from.

    Attributes:
        wall: seconds since the epoch, as the machine believes; may step.
        passed: seconds that only go up, and at the rate of real ones.
    """

    wall: Callable[[], float] = time.time
    passed: Callable[[], float] = _passed


@dataclass(frozen=True)
class Seen:
    """What is kept of time: when the service last ran, and since when it has not believed the wall clock.

    Both are seconds since the epoch, by a KeyClock.
    """

    time: float
    doubted_since: float | None = None


Redate = Callable[[float], float]
"""Maps a time that was stored by the former clock to the corrected one."""


class KeyClock:
    """Seconds since the epoch: by the wall clock when it is first looked at, and by what has passed since then.

    A wall clock that is further from what was last stored, in either direction, than a service is ever out of use is
    not believed: then time goes on from what was stored, as if there had been no downtime.

    Args:
        known: what was stored; None where nothing was.
        longest_downtime: seconds.

    Attributes:
        doubted_since: when the service ceased to believe the wall clock; None while it does.
    """

    def __init__(self, known: Seen | None, longest_downtime: float, clocks: Clocks) -> None:
        self._longest_downtime = longest_downtime
        self._clocks = clocks
        self._reminded: float | None = None
        self.doubted_since: float | None = None
        self._set(clocks.wall())
        if known is not None and not self._is_plausible(known.time):
            self.doubted_since = known.time if known.doubted_since is None else known.doubted_since
            self._set(known.time)

    def __call__(self) -> float:
        start, since = self._start
        return start + self._clocks.passed() - since

    @property
    def is_doubted(self) -> bool:
        """Whether the wall clock is not believed."""
        return self.doubted_since is not None

    def look(self, is_confirmed: bool) -> Redate | None:
        """Look at the wall clock again while it is not believed.

        Args:
            is_confirmed: whether an operator says that it is right.

        Returns:
            What becomes of times until now, when it is believed from now on; None when nothing changes.
        """
        since, before = self.doubted_since, self()
        if since is None:
            return None
        jump = self._clocks.wall() - before
        if not is_confirmed and not self._is_plausible(before):
            self._remind(jump)
            return None
        self._set(before + jump)
        self.doubted_since = None
        log(_logger, logging.INFO, "key expiry resumed", confirmed=str(is_confirmed).lower(), jump_seconds=round(jump))
        return lambda time: time + jump if time > since else min(time, since + jump)

    def _set(self, now: float) -> None:
        self._start = now, self._clocks.passed()

    def _is_plausible(self, known: float) -> bool:
        return abs(self._clocks.wall() - known) <= self._longest_downtime

    def _remind(self, jump: float) -> None:
        now = self._clocks.passed()
        if self._reminded is None or now - self._reminded >= REMINDER_SECONDS:
            self._reminded = now
            log(
                _logger,
                logging.WARNING,
                "key expiry suspended",
                jump_seconds=round(jump),
                longest_downtime=self._longest_downtime,
                way_out=_WAY_OUT,
            )

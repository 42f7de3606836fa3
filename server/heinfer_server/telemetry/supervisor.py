"""What is told to the supervisor that started the service, in the protocol of systemd's sd_notify(3)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from time import CLOCK_MONOTONIC, clock_gettime_ns

from heinfer_server.telemetry.logs import log

_logger = logging.getLogger(__name__)

LOADING_EVERY_SECONDS = 5.0
_LOADING_SECONDS = 60
"""From one message to the next while models load, on a busy machine: then systemd takes it for stuck."""

_ENDING_SPARE_SECONDS = 10


class Supervisor:
    """Tells systemd, or whoever speaks its protocol, how far the service is; without one it does nothing.

    It takes what it needs out of the environment, so that no worker can speak in the service's place.
    """

    def __init__(self) -> None:
        self._address = _address(os.environ.pop("NOTIFY_SOCKET", ""))
        self._alive_every = _alive_every(os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", ""))

    def loading(self) -> None:
        """Models load, which may take longer than a start is given by default; to be said again and again."""
        self._tell("STATUS=loading models", f"EXTEND_TIMEOUT_USEC={_LOADING_SECONDS * 1_000_000}")

    def ready(self) -> None:
        self._tell("READY=1", "STATUS=serving")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """What happens inside is a reload; it ends with the service as ready as it was."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={clock_gettime_ns(CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self.ready()

    def ending(self, seconds: float) -> None:
        """The service ends, which takes so long at most, and a little for its workers."""
        microseconds = round((seconds + _ENDING_SPARE_SECONDS) * 1_000_000)
        self._tell("STOPPING=1", "STATUS=ending", f"EXTEND_TIMEOUT_USEC={microseconds}")

    async def stay_alive(self) -> None:
        """Say for ever, twice as often as is wanted, that the event loop goes round; only if it is wanted."""
        while self._alive_every:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._alive_every)

    async def stay_loading(self) -> None:
        """Say for ever that models load."""
        while True:
            self.loading()
            await asyncio.sleep(LOADING_EVERY_SECONDS)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaking:
                speaking.setblocking(False)  # the event loop waits for nobody
                speaking.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log(_logger, logging.WARNING, "supervisor not told", told=lines[0], reason=error.strerror)


def _address(name: str) -> str:
    """Where to send to: a path, or a name in Linux's abstract space, written with @; empty where there is none."""
    if name and name[0] not in "/@":
        log(_logger, logging.WARNING, "supervisor not told", reason="NOTIFY_SOCKET is no path and no abstract name")
        return ""
    return "\0" + name[1:] if name.startswith("@") else name


def _alive_every(microseconds: str, pid: str) -> float:
    """Seconds between signs of life; 0 where none are wanted of this process."""
    is_ours = not pid or pid == str(os.getpid())
    return int(microseconds) / 2_000_000 if is_ours and microseconds.isdecimal() else 0.0

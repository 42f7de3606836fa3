"""How the files that the process may open are shared out: connections never take those that all else needs."""

from __future__ import annotations

import resource
from dataclasses import dataclass

from heinfer.errors import SettingError
from heinfer_server.web import metrics_port

LEAST_CONNECTIONS = 16

SERVICE_FILES = 96
"""Of the service itself: its sockets, the event loop's, stored keys that threads read and write, libraries."""

FILES_PER_WORKER = 8
"""Pipes to a worker, and those that are there while it starts."""

METRICS_FILES = metrics_port.MOST_CONNECTIONS + 2 * metrics_port.BACKLOG

MOST_BACKLOG = 64
_BACKLOG_SHARE = 8


@dataclass(frozen=True)
class Descriptors:
    """What is left for connections of the public port.

    Attributes:
        reserved: files for all else.
        backlog: connections that wait to be accepted; asyncio accepts as many at once, before it tells a protocol of
            the first.
    """

    reserved: int
    backlog: int

    @property
    def connections(self) -> int:
        """How many there may be, as the limit is now: it may be changed meanwhile."""
        return max(LEAST_CONNECTIONS, _limit() - self.reserved)


def share_out(workers: int, listeners: int, with_metrics: bool) -> Descriptors:
    """Share out the files that the process may open.

    Args:
        workers: how many there are.
        listeners: sockets that the public port listens on.
        with_metrics: whether metrics have a port.

    Raises:
        SettingError: when too few are left for connections.
    """
    needed = SERVICE_FILES + FILES_PER_WORKER * workers + METRICS_FILES * with_metrics
    free = _limit() - needed
    backlog = max(1, min(MOST_BACKLOG, free // (_BACKLOG_SHARE * listeners)))
    reserved = needed + 2 * backlog * listeners  # accepted before a protocol knows, and as many on their way out
    if _limit() - reserved < LEAST_CONNECTIONS:
        raise SettingError(
            f"this process may open {_limit()} files: {workers} workers and the service itself take up to {reserved}, "
            f"and {LEAST_CONNECTIONS} connections are the least: raise the limit (ulimit -n, LimitNOFILE= of systemd), "
            "or lower HEINFER_SERVER_WORKERS"
        )
    return Descriptors(reserved, backlog)


def _limit() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 16 if files == resource.RLIM_INFINITY else files

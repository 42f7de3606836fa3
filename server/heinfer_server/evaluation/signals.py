"""Signals that are meant for the service and also come to its workers, which are for it to end.

A terminal that is closed, Ctrl-C, timeout(1) and others send them to all processes of a group.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_OF_THE_SERVICE = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """A process that this thread makes meanwhile is not ended by them, not even before it can say so itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_SERVICE)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_the_service() -> None:
    """In a worker: hear of none that is sent to the group or the terminal, neither of those that came before."""
    os.setsid()
    for number in _OF_THE_SERVICE:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_SERVICE)

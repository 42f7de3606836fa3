"""The connections of a client: shared by its threads, and never by two processes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, RLock
from weakref import WeakSet

import httpx
import numpy.ma  # noqa: F401
import PIL.ImageFile  # noqa: F401

from heinfer.errors import SettingError
from heinfer.system import begin_in_child
from heinfer_client.address import Address
from heinfer_client.transfer import require_open

# What others import at its first use only: a module that a thread imports while another forks is locked in the child.
codecs.lookup("idna")  # of names of hosts


class Connections:
    """An httpx client, closed when no call is under way any more.

    A process that is forked inherits its parent's sockets, and who reads from one takes the other's answers. So a child
    opens connections of its own; those of the parent it lets go of without a word on them.

    Args:
        farewell: is given the httpx client before that is closed.

    Attributes:
        preparing: held by the thread that has a model opened and keys registered.
        is_closed: whether close has been called.
    """

    def __init__(
        self, address: Address, transport: httpx.BaseTransport | None, farewell: Callable[[httpx.Client], None]
    ) -> None:
        self._address = address
        self._transport = transport
        self._farewell = farewell
        self._is_foreign = False
        self.is_closed = False
        self._begin()
        _ALL.add(self)

    def _begin(self) -> None:
        self.preparing = RLock()
        self._lock = Lock()
        self._calls = 0
        self._http = httpx.Client(transport=self._transport, **self._address.options)

    def require_usable(self) -> None:
        """SettingError when nothing can be sent any more."""
        require_open(self.is_closed)
        if self._is_foreign:
            raise SettingError(
                "this client was made in another process with a transport of its own, which may be shared with that "
                "one: make another client here"
            )

    @property
    def http(self) -> httpx.Client:
        """The httpx client, for one request of a call; SettingError when no more can be sent."""
        self.require_usable()
        return self._http

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around a call, whose request under way close does not disturb; SettingError as http."""
        with self._lock:
            self.require_usable()
            lock = self._lock
            self._calls += 1
        try:
            yield
        finally:
            if lock is self._lock:  # else this is a child, forked meanwhile
                with lock:
                    self._calls -= 1
                    is_last = self.is_closed and not self._calls
                if is_last:
                    self._end()

    def close(self) -> None:
        """Take no more calls and requests; who is the last one says farewell: this one, or a call that is under way."""
        with self._lock:
            is_last = not self.is_closed and not self._calls
            self.is_closed = True
        if is_last:
            self._end()

    def _end(self) -> None:
        if self._is_foreign:
            return
        try:
            self._farewell(self._http)
        finally:
            self._http.close()

    def after_fork(self) -> None:
        """Begin anew, in the child: its parent's threads, one of which may have held a lock, are not there."""
        self._is_foreign = self._transport is not None
        self._begin()


_ALL: WeakSet[Connections] = WeakSet()


def _after_fork() -> None:
    for connections in _ALL:
        connections.after_fork()


begin_in_child(_after_fork)

"""How a client's flows reach its service: one interface, of what blocks a thread and of what gives way to a loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from heinfer.errors import SettingError
from heinfer.system import Renewed
from heinfer_client.address import Address
from heinfer_client.budget import Budget
from heinfer_client.messages import Reply, Request
from heinfer_client.progress import Advance, Bars
from heinfer_client.registrations import FAREWELL_SECONDS, Registrations
from heinfer_client.transfer import headers_of, transport_errors

P = ParamSpec("P")
T = TypeVar("T")


class Connections(Renewed):
    """What flows await: replies, pauses, results of computations, and their turn to change what a client holds.

    Of the client itself it knows nothing: one that nobody has any more goes at once, its key with it.

    Attributes:
        url: of the service.
        timeout: seconds that a request may take in all.
        bars: that show what is under way.
        budget: of what is tried again.
        registrations: what the service is to forget.
    """

    def __init__(self, address: Address, timeout: float, bars: Bars) -> None:
        self.url = address.url
        self.timeout = timeout
        self.bars = bars
        self.budget = Budget()
        self.registrations = Registrations()
        self._address = address
        self._is_closed = False
        super().__init__()

    def begin(self) -> None:
        self._lock = Lock()
        self._calls = 0

    # What flows await

    async def send(self, request: Request) -> Reply:
        """Send a request, and return its reply.

        Raises:
            ServiceUnavailableError: when none comes, or not in time; its InsecureConnectionError where TLS fails.
            ServiceError: when it is longer than it may be.
            SettingError: when nothing can be sent any more.
        """
        self._require_usable()
        total = len(request.body or b"")
        with transport_errors(self._address, self.timeout), self.bars.bar(request.upload, total) as advance:
            return await self._exchange(request, min(self.timeout, request.seconds), advance)

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Wait."""

    @abstractmethod
    async def computed(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do what takes long, or reads or writes files; who is cancelled still waits for its end."""

    @abstractmethod
    async def alone(self, flow: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
        """Run a flow that changes what the client holds, after others of its kind; it must not run another so."""

    # Calls and their end

    async def call(self, flow: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
        """Run all that a call does, whose request under way close does not disturb.

        Raises:
            SettingError: when nothing can be sent any more.
        """
        with self._lock:
            self._require_usable()
            lock = self._lock
            self._calls += 1
        try:
            return await flow(*arguments, **named)
        finally:
            if lock is self._lock:  # else this is a child, forked meanwhile
                with lock:
                    self._calls -= 1
                    is_last = self._is_closed and not self._calls
                if is_last:
                    await self._end()

    async def close(self) -> None:
        """Take no more calls and requests; who is the last one says farewell: this one, or a call that is under way."""
        with self._lock:
            is_last = not self._is_closed and not self._calls
            self._is_closed = True
        if is_last:
            await self._end()

    async def _end(self) -> None:
        if not self._is_at_home:
            return
        try:
            await self._say_farewell()
        finally:
            await self._disconnect()

    async def _say_farewell(self) -> None:
        ends = monotonic() + FAREWELL_SECONDS
        for word in self.registrations.farewell():
            seconds = ends - monotonic()
            if seconds <= 0:
                return
            with suppress(Exception):  # nothing hangs on it
                await self._exchange(replace(word, seconds=seconds), seconds, lambda _bytes: None)

    # How it is done

    @property
    @abstractmethod
    def _is_at_home(self) -> bool:
        """Whether connections may be used, and closed, from where this is."""

    def _require_usable(self) -> None:
        """SettingError when nothing can be sent (any more, or from here)."""
        if self._is_closed:
            raise SettingError("this client is closed: make another")

    def _head(self, request: Request) -> dict[str, Any]:
        """All of a request but its body, for httpx."""
        url = self.url + request.path
        return {"method": request.method, "url": url, "params": request.query, "headers": headers_of(request)}

    @abstractmethod
    async def _exchange(self, request: Request, seconds: float, advance: Advance) -> Reply:
        """Send a request as httpx does; `advance` is told bytes that have gone out. TimeoutError after `seconds`."""

    @abstractmethod
    async def _disconnect(self) -> None: ...

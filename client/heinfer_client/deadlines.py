"""Deadlines of whole requests, for who blocks: httpx bounds each step alone, and a server may take many."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

import httpcore
import httpx

from heinfer.errors import ServiceUnavailableError
from heinfer_client.address import Network

T = TypeVar("T")

_LONGEST_STEP = 600.0
"""Seconds that a step may take for which httpx names none; sockets do not take the longest of deadlines."""

_ENDS: ContextVar[float] = ContextVar("heinfer_client_ends", default=inf)


@contextmanager
def until(seconds: float) -> Iterator[None]:
    """Around what is sent through BoundedTransport in this thread; TimeoutError when it takes longer."""
    ends = monotonic() + seconds
    token = _ENDS.set(ends)
    try:
        yield
    except httpx.TimeoutException as error:
        if monotonic() >= ends:
            raise TimeoutError from error
        raise
    finally:
        _ENDS.reset(token)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do what knows no deadline in a thread of its own, and wait for it no longer than that.

    The thread is left to itself after that, and ends with its work or with the process.

    Raises:
        TimeoutError: when it takes longer.
        ServiceUnavailableError: when the interpreter ends, and no thread begins any more.
    """
    if sys.is_finalizing():
        raise ServiceUnavailableError("the interpreter ends, and nothing is sent any more: close the client before")
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # also what is no Exception belongs to who waits
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return outcome.result(seconds)


class BoundedTransport(httpx.HTTPTransport):
    """httpx's own, each of whose steps ends when the request has to: it takes no thread but to connect."""

    def __init__(self, network: Network) -> None:
        super().__init__(**network, trust_env=False)
        self._pool._network_backend = _Network(self._pool._network_backend)  # httpx passes none on

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["timeout"]["pool"] = _left()  # until one of the connections that there may be is free
        return super().handle_request(request)


class _Network(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *others: Any, **named: Any) -> _Stream:
        step = _step(timeout)  # of each of a name's addresses, and none is of the name
        return _Stream(within(_left(), lambda: self._inner.connect_tcp(host, port, step, *others, **named)))


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._socket = inner.get_extra_info("socket")

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _step(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)
        try:
            while rest:  # a piece may be taken byte by byte
                self._socket.settimeout(_step(timeout))
                rest = rest[self._socket.send(rest) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, _step(timeout))
        # TLS in TLS names the outer one's socket as its own: what `write` sent there, a proxy would read.
        return inner if isinstance(self._socket, ssl.SSLSocket) else _Stream(inner)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left() -> float:
    left = _ENDS.get() - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _step(timeout: float | None) -> float:
    """Seconds that the next step may take; TimeoutError when none are left."""
    return min(_left(), _LONGEST_STEP if timeout is None else timeout)

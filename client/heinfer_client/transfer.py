"""What both clients' ways of sending share: URL, time-outs, chunks, bounded answers, typed errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from math import inf
from numbers import Real
from threading import TIMEOUT_MAX, Thread
from typing import NamedTuple, TypeVar

import httpx

from heinfer.errors import ServiceError, ServiceUnavailableError, SettingError
from heinfer_client.messages import MAX_SMALL_BYTES, Reply, Request

TIMEOUT = httpx.Timeout(connect=10.0, read=600.0, write=60.0, pool=None)
"""Of each step on the way; reading waits for an evaluation, and for those before it."""

DEADLINE = 900.0
"""Seconds that a request may take in all unless the user says otherwise."""

_LONGEST_TIMEOUT = 86400.0
"""That a service takes note of."""

API_KEY_VARIABLE = "HEINFER_API_KEY"

HEADERS = {"Accept-Encoding": "identity"}
"""A compressed answer could be a bomb, and ciphertexts do not compress."""

CHUNK = 1 << 16

_NOT_TLS = "WRONG_VERSION_NUMBER"
"""What OpenSSL says of an answer in plain HTTP."""

T = TypeVar("T")


class Address(NamedTuple):
    """Where the service is: its URL without credentials, which may be shown and stored, and the credentials."""

    url: str
    credentials: tuple[str, str] | None


def checked_address(url: str) -> Address:
    """The address that a URL gives; SettingError, which echoes nothing of it, when it gives none."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise _malformed() from None
    rest = (parsed.path, parsed.query.decode(), parsed.fragment)
    # An @ after the host's part: a password that has a / in it, and what is before that would be taken for the host.
    if parsed.scheme not in ("http", "https") or not parsed.host or any(rest[1:]) or "@" in rest[0]:
        raise _malformed()
    credentials = (parsed.username, parsed.password) if parsed.userinfo else None
    return Address(str(parsed.copy_with(userinfo=b"")).rstrip("/"), credentials)


def _malformed() -> SettingError:
    return SettingError(
        "the server's URL must be like http://127.0.0.1:8000, user and password in it percent-encoded, without a query"
    )


def checked_headers(api_key: str | None, credentials: tuple[str, str] | None) -> dict[str, str]:
    """Headers of every request, the API key among them: the given one, else that of the environment.

    SettingError, which echoes nothing of it, when it is none, or when the URL has a user and a password as well.
    """
    key = os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key
    if key == "":
        return HEADERS
    if credentials:
        raise SettingError("give an API key or a URL with user and password: both go into the same header")
    if not isinstance(key, str) or not re.fullmatch(r"[!-~]{1,512}", key):
        raise SettingError("the API key must be the string that `heinfer tenant` printed, without spaces")
    return HEADERS | {"Authorization": f"Bearer {key}"}


def checked_timeout(seconds: float) -> float:
    """Seconds that one request may take; SettingError when they are none."""
    if not isinstance(seconds, Real) or not 0 < seconds <= TIMEOUT_MAX:
        raise SettingError(f"the time-out must be a number of seconds above 0, not {seconds!r}")
    return float(seconds)


def require_open(is_closed: bool) -> None:
    """SettingError when a client is closed."""
    if is_closed:
        raise SettingError("this client is closed: make another")


def chunks(body: bytes) -> Iterator[bytes]:
    """A body in pieces, so that a progress bar can follow."""
    view = memoryview(body)
    return (bytes(view[start : start + CHUNK]) for start in range(0, len(body), CHUNK))


def headers_of(request: Request) -> dict[str, str]:
    """Headers of a request: how long its sender waits, and what its body needs that goes out in pieces."""
    seconds = min(max(request.seconds, 0.001), _LONGEST_TIMEOUT)
    headers = {} if request.seconds == inf else {"Heinfer-Timeout": f"{seconds:.3f}"}
    if request.idempotency_key:
        headers["Idempotency-Key"] = request.idempotency_key
    if request.body is None:
        return headers
    return headers | {"Content-Length": str(len(request.body)), "Content-Type": "application/octet-stream"}


class Answer:
    """Collects an answer; ServiceError when it is compressed, or as soon as it is longer than it may be."""

    def __init__(self, request: Request, response: httpx.Response) -> None:
        if "content-encoding" in response.headers:
            raise ServiceError(
                "the service's answer is compressed, which was not asked for", status=response.status_code
            )
        self._limit = max(request.limit, MAX_SMALL_BYTES)
        self._response = response
        self._body = bytearray()

    def add(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        if len(self._body) + len(chunk) > self._limit:
            raise ServiceError(
                f"the service's answer is longer than the {self._limit} bytes it may have",
                status=self._response.status_code,
            )
        self._body += chunk

    def reply(self) -> Reply:
        """The whole answer."""
        timing = self._response.headers.get("server-timing", "")
        retry_after = self._response.headers.get("retry-after", "")
        expected = self._response.headers.get("heinfer-evaluation-seconds", "")
        has_api_key = self._response.request.headers.get("authorization", "").startswith("Bearer ")
        return Reply(self._response.status_code, bytes(self._body), timing, retry_after, expected, has_api_key)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do work in a thread of its own, and wait for it no longer than that.

    A server that sends a byte now and then passes all time-outs of a socket. The thread is left to itself after that,
    and ends with its connection or with the process.

    Raises:
        TimeoutError: when it takes longer.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # also what is no Exception belongs to who waits
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return outcome.result(seconds)


@contextmanager
def transport_errors(url: str, seconds: float) -> Iterator[None]:
    """Turn httpx's errors, and that a request took longer than `seconds`, into ServiceUnavailableError."""
    try:
        yield
    except TimeoutError as error:
        raise ServiceUnavailableError(
            f"no whole answer from {url} within {seconds:g} seconds: try again later, or give a longer timeout"
        ) from error
    except httpx.HTTPError as error:
        cause = str(error) or type(error).__name__
        hint = "the service may speak http, not https" if _NOT_TLS in cause else "is the service running there?"
        raise ServiceUnavailableError(f"no answer from {url} ({cause}): {hint}") from error

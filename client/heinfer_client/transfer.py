"""What both clients' ways of sending share: URL, time-outs, chunks, bounded answers, typed errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from heinfer.errors import ServiceError, ServiceUnavailableError, SettingError
from heinfer_client.messages import MAX_SMALL_BYTES, Reply, Request

TIMEOUT = httpx.Timeout(connect=10.0, read=600.0, write=60.0, pool=None)
"""Reading waits for an evaluation, and for those before it."""

HEADERS = {"Accept-Encoding": "identity"}
"""A compressed answer could be a bomb, and ciphertexts do not compress."""

CHUNK = 1 << 16


def checked_url(url: str) -> str:
    """The server's URL without a trailing slash; SettingError when it is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise SettingError(f"the server's URL is malformed: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SettingError("the server's URL must be like http://127.0.0.1:8000")
    return url.rstrip("/")


def chunks(body: bytes) -> Iterator[bytes]:
    """A body in pieces, so that a progress bar can follow."""
    view = memoryview(body)
    return (bytes(view[start : start + CHUNK]) for start in range(0, len(body), CHUNK))


def headers_of(request: Request) -> dict[str, str]:
    """Headers of a body that goes out in pieces."""
    if request.body is None:
        return {}
    return {"Content-Length": str(len(request.body)), "Content-Type": "application/octet-stream"}


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
        return Reply(self._response.status_code, bytes(self._body), timing)


@contextmanager
def transport_errors(url: str) -> Iterator[None]:
    """Turn httpx's errors into ServiceUnavailableError."""
    try:
        yield
    except httpx.HTTPError as error:
        cause = str(error) or type(error).__name__
        raise ServiceUnavailableError(f"no answer from {url} ({cause}): is the service running there?") from error

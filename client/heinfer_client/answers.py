"""What comes back from a service, bounded while it comes, however it is coded."""

from __future__ import annotations

import zlib

import httpx

from heinfer.errors import ServiceError
from heinfer_client.messages import MAX_SMALL_BYTES, Reply, Request

_MAX_ADDRESS = 200
"""Characters of another address that are shown."""

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""Codings that a proxy may put an answer in though none is asked for, with zlib's number for each."""


class Answer:
    """Collects an answer.

    Raises:
        ServiceError: as soon as it is longer than it may be, decoded, or is not coded as it says; or when its coding is
            none that is known here.
    """

    def __init__(self, request: Request, response: httpx.Response) -> None:
        self._request = request
        self._response = response
        self._limit = max(request.limit, MAX_SMALL_BYTES)
        self._most = self._limit + (self._limit >> 8) + 1024  # nothing takes more, however badly it is compressed
        self._come = 0
        self._body = bytearray()
        coding = response.headers.pop("content-encoding", "identity").strip().lower()  # or httpx decodes, unbounded
        if response.is_stream_consumed:  # a transport has read all of it, and decoded it
            coding = "identity"
        if coding not in ("", "identity", *_WINDOWS):
            raise self._error("compressed, which was not asked for, in a way that is not known here")
        self._inflate = zlib.decompressobj(_WINDOWS[coding]) if coding in _WINDOWS else None

    def add(self, chunk: bytes) -> None:
        """Take a piece of the body; no more is decoded than there is room for, and one byte: a bomb costs no memory."""
        self._come += len(chunk)
        room = self._limit - len(self._body)
        is_damaged = False
        if self._inflate is not None:
            try:
                chunk = self._inflate.decompress(chunk, room + 1)
            except zlib.error:
                raise self._damaged() from None
            is_damaged = bool(self._inflate.unconsumed_tail or self._inflate.unused_data)
        if len(chunk) > room or self._come > self._most:
            raise self._error(f"longer than the {self._limit} bytes it may have")
        if is_damaged:
            raise self._damaged()
        self._body += chunk

    def reply(self) -> Reply:
        """The whole answer."""
        if self._inflate is not None and self._come and not self._inflate.eof:
            raise self._damaged()
        headers = self._response.headers
        return Reply(
            self._response.status_code,
            bytes(self._body),
            server_timing=headers.get("server-timing", ""),
            retry_after=headers.get("retry-after", ""),
            expected=headers.get("heinfer-evaluation-seconds", ""),
            has_api_key=self._response.request.headers.get("authorization", "").startswith("Bearer "),
            moved_to=_moved_to(self._response, self._request.path),
        )

    def _damaged(self) -> ServiceError:
        return self._error("compressed, and damaged")

    def _error(self, how: str) -> ServiceError:
        return ServiceError(f"the service's answer is {how}", status=self._response.status_code)


def _moved_to(response: httpx.Response, path: str) -> str:
    """Where a redirection leads: an address like the one that a client is given, without credentials or a query."""
    try:
        there = response.url.join(response.headers["location"])
    except (KeyError, httpx.InvalidURL):
        return ""
    bare = str(there.copy_with(userinfo=b"", query=None, fragment=None)).removesuffix(path).rstrip("/")
    return "".join(character for character in bare if character.isascii() and character.isprintable())[:_MAX_ADDRESS]

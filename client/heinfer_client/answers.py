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
        self._body = _Bounded(max(request.limit, MAX_SMALL_BYTES), response.status_code)
        coding = response.headers.pop("content-encoding", "identity").strip().lower()  # or httpx decodes, unbounded
        if response.is_stream_consumed:  # a transport has read all of it, and decoded it
            coding = "identity"
        if coding not in ("", "identity", *_WINDOWS):
            text = "the service's answer is compressed, which was not asked for, in a way that is not known here"
            raise ServiceError(text, status=response.status_code)
        self._decoder = _Decoder(_WINDOWS[coding], self._body) if coding in _WINDOWS else None

    def add(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        if self._decoder is None:
            self._body.add(chunk)
        else:
            self._decoder.add(chunk)

    def reply(self) -> Reply:
        """The whole answer."""
        if self._decoder is not None:
            self._decoder.end()
        headers = self._response.headers
        return Reply(
            self._response.status_code,
            bytes(self._body.data),
            server_timing=headers.get("server-timing", ""),
            retry_after=headers.get("retry-after", ""),
            expected=headers.get("heinfer-evaluation-seconds", ""),
            has_api_key=self._response.request.headers.get("authorization", "").startswith("Bearer "),
            moved_to=_moved_to(self._response, self._request.path),
        )


class _Bounded:
    """Bytes up to a limit.

    Attributes:
        room: how many more there may be.
    """

    def __init__(self, limit: int, status: int) -> None:
        self._limit = limit
        self.status = status
        self.data = bytearray()

    @property
    def room(self) -> int:
        return self._limit - len(self.data)

    def add(self, chunk: bytes) -> None:
        if len(chunk) > self.room:
            raise self.too_long()
        self.data += chunk

    def too_long(self) -> ServiceError:
        text = f"the service's answer is longer than the {self._limit} bytes it may have"
        return ServiceError(text, status=self.status)


class _Decoder:
    """Decodes no more at a time than there is room for, and one byte: a bomb costs no memory."""

    def __init__(self, window: int, body: _Bounded) -> None:
        self._body = body
        self._inflate = zlib.decompressobj(window)
        self._come = 0
        self._most = body.room + (body.room >> 8) + 1024  # nothing takes more, however badly it is compressed

    def add(self, chunk: bytes) -> None:
        self._come += len(chunk)
        if self._come > self._most:
            raise self._body.too_long()
        try:
            self._body.add(self._inflate.decompress(chunk, self._body.room + 1))
        except zlib.error:
            raise self._damaged() from None
        if self._inflate.unconsumed_tail or self._inflate.unused_data:
            raise self._damaged()

    def end(self) -> None:
        if self._come and not self._inflate.eof:
            raise self._damaged()

    def _damaged(self) -> ServiceError:
        return ServiceError("the service's answer is compressed, and damaged", status=self._body.status)


def _moved_to(response: httpx.Response, path: str) -> str:
    """Where a redirection leads: an address like the one that a client is given, without credentials or a query."""
    try:
        there = response.url.join(response.headers["location"])
    except (KeyError, httpx.InvalidURL):
        return ""
    bare = str(there.copy_with(userinfo=b"", query=None, fragment=None)).removesuffix(path).rstrip("/")
    return "".join(character for character in bare if character.isascii() and character.isprintable())[:_MAX_ADDRESS]

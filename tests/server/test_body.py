"""Bodies of requests: whole, in memory once, no longer and no slower than they may be."""

import asyncio
import time
import tracemalloc

import pytest
from starlette.requests import ClientDisconnect, Request

from heinfer.errors import PayloadTooLargeError
from heinfer_server.errors import SlowBodyError
from heinfer_server.web.body import read_body


def request_of(pieces: list[bytes | float | None], content_length: str | None = None) -> Request:
    """A request whose body arrives in these pieces; a number is a pause in seconds, None a disconnection."""
    rest = list(pieces)

    async def receive() -> dict[str, object]:
        piece = rest.pop(0) if rest else b""
        if piece is None:
            return {"type": "http.disconnect"}
        if isinstance(piece, float):
            await asyncio.sleep(piece)
            piece = b""
        return {"type": "http.request", "body": piece, "more_body": bool(rest)}

    headers = [(b"content-length", content_length.encode())] if content_length is not None else []
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def read(request: Request, length: int = 10, seconds: float = 5.0) -> bytes:
    return asyncio.run(read_body(request, length, seconds))


def test_a_body_is_read_whole():
    assert read(request_of([b"01234", b"56789"], "10")) == b"0123456789"
    assert read(request_of([b"0123"])) == b"0123"


def test_a_body_is_in_memory_once():
    mib = bytes(1 << 20)
    length = 16 * len(mib)

    async def peak() -> int:
        assert len(await read_body(request_of([mib] * 16), length, 5.0)) == length
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        assert asyncio.run(peak()) < 1.5 * length
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("declared", ["11", "99999999999999999999999", "ten", "-1", "1_0"])
def test_a_declared_length_that_is_too_large_is_refused_before_a_byte_is_read(declared):
    with pytest.raises(PayloadTooLargeError):
        read(request_of([], declared))


def test_a_chunked_body_is_refused_at_the_first_byte_too_much():
    with pytest.raises(PayloadTooLargeError):
        read(request_of([b"0123"] * 1000))


def test_a_slow_body_is_given_up():
    with pytest.raises(SlowBodyError, match=r"within 0\.05 seconds"):
        read(request_of([b"0", 10.0]), seconds=0.05)


def test_a_long_body_that_stops_is_given_up_as_soon_as_a_short_one():
    mib = bytes(1 << 20)
    started = time.monotonic()
    with pytest.raises(SlowBodyError):
        read(request_of([mib, mib, 10.0]), length=100 << 20, seconds=0.2)
    assert time.monotonic() - started < 2.0
    assert len(read(request_of([mib, 0.2, mib, 0.2, mib]), length=100 << 20, seconds=0.3)) == 3 << 20


def test_a_client_that_goes_away_is_no_error_of_ours():
    with pytest.raises(ClientDisconnect):
        read(request_of([b"0", None]))

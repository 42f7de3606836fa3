"""Request bodies of bounded length, read within a bounded time."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from io import BytesIO

from starlette.requests import Request

from heinfer.errors import PayloadTooLargeError
from heinfer_server.errors import SlowBodyError

REFUSALS = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
"""How a request may be answered whose body is read here."""

_MIB = 1 << 20
_MAX_DIGITS = 20


async def read_body(request: Request, length: int, seconds_per_mib: float) -> bytes:
    """Read a body that by the model's manifest has `length` bytes.

    A shorter one is returned as it is: the reader of frames has the words for it.

    Raises:
        PayloadTooLargeError: as soon as the body is known to be longer, declared or not.
        SlowBodyError: when a MiB of it takes longer than `seconds_per_mib`. Not when all of it takes longer than all
            of them together: a few clients who send nothing would keep all others waiting for minutes.
        ClientDisconnect: when the client goes away.
    """
    declared = request.headers.get("content-length", "0")
    if len(declared) > _MAX_DIGITS or not declared.isdecimal() or int(declared) > length:
        raise _too_large(length)
    # One buffer: a list of chunks of one byte each would take fifty times the memory. Its bytes are its result, without
    # a copy, as long as nothing else holds them.
    body = BytesIO()
    try:
        async with asyncio.timeout(seconds_per_mib) as limit:
            async for chunk in request.stream():
                started = body.tell() // _MIB
                if body.tell() + len(chunk) > length:
                    raise _too_large(length)
                body.write(chunk)
                if body.tell() // _MIB > started:
                    limit.reschedule(asyncio.get_running_loop().time() + seconds_per_mib)
    except TimeoutError:
        text = f"a MiB of the body, or its rest, did not arrive within {seconds_per_mib:g} seconds: send it faster"
        raise SlowBodyError(text) from None
    return body.getvalue()


def _too_large(length: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"the body may have {length} bytes: send what the manifest implies, or the rest of the upload, and no more"
    )

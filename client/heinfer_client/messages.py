"""What is asked of the server and what it answers, without how it gets there."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from dataclasses import dataclass, field
from math import nan
from typing import TypeAlias, TypeVar

from heinfer.errors import (
    PayloadTooLargeError,
    ServiceError,
    ServiceUnavailableError,
    UnknownKeysError,
    UnknownModelError,
    UnknownUploadError,
    UploadDigestError,
    UploadIncompleteError,
    UploadOffsetError,
    WorkerFailedError,
)

MAX_SMALL_BYTES = 1 << 16
"""Length that an answer may have when nothing says otherwise: problems, and ids of keys."""

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Attributes:
        method: GET, POST or PATCH.
        path: below the server's URL, quoted.
        query: parameters, not quoted.
        body: None for none.
        limit: bytes that the answer may have.
        upload: what the progress bar says while the body goes out; none is shown when it is empty.
    """

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    limit: int = MAX_SMALL_BYTES
    upload: str = ""


@dataclass(frozen=True)
class Reply:
    """One HTTP answer: status, the headers that matter (empty when absent), and the body."""

    status: int
    body: bytes
    server_timing: str = ""


@dataclass(frozen=True)
class Pause:
    """Seconds to wait."""

    seconds: float


Flow: TypeAlias = Generator[Request | Pause, Reply | None, T]
"""Asks by yielding a request and is sent the reply, waits by yielding a pause, and returns its result.

ServiceUnavailableError is thrown into it where no reply came.
"""


def ask(request: Request) -> Flow[Reply]:
    """Ask and return the reply."""
    reply = yield request
    assert reply is not None
    return reply


_BY_CODE: dict[str, type[ServiceError]] = {
    error.code: error
    for error in (
        PayloadTooLargeError,
        ServiceUnavailableError,
        UnknownKeysError,
        UnknownModelError,
        UnknownUploadError,
        UploadDigestError,
        UploadIncompleteError,
        UploadOffsetError,
        WorkerFailedError,
    )
}


def require_success(reply: Reply) -> None:
    """Raise the error that the server's problem+json names, unless the reply is a success."""
    if 200 <= reply.status < 300:
        return
    code, detail, request_id = _problem(reply.body)
    where = f" (request {request_id})" if request_id else ""
    text = f"{detail or f'the service answered with HTTP status {reply.status}'}{where}"
    raise _BY_CODE.get(code, ServiceError)(text, status=reply.status, code=code or None)


def _problem(body: bytes) -> tuple[str, str, str]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return "", "", ""
    code, detail, request_id = (_printable(found.get(name)) for name in ("code", "detail", "request_id"))
    return code, detail, request_id


def _printable(value: object) -> str:
    """A string that may go to a terminal, whoever sent it."""
    return "".join(character for character in value[:400] if character.isprintable()) if isinstance(value, str) else ""


def evaluation_seconds(reply: Reply) -> float:
    """Seconds that the Server-Timing header names as the evaluation's; NaN when it does not."""
    for metric in reply.server_timing.split(","):
        name, _, rest = metric.strip().partition(";")
        key, _, value = rest.partition("=")
        if name == "evaluation" and key == "dur":
            return float(value) / 1000 if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else nan
    return nan

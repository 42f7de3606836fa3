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
    WorkerFailedError,
)

MAX_SMALL_BYTES = 1 << 16
"""Length that an answer may have when nothing says otherwise: problems, and ids of keys."""

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Attributes:
        method: GET or POST.
        path: below the server's URL, quoted.
        query: parameters, not quoted.
        body: None for a GET.
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


Flow: TypeAlias = Generator[Request, Reply, T]
"""Asks by yielding a request, is sent the reply, and returns its result."""

_BY_CODE: dict[str, type[ServiceError]] = {
    error.code: error
    for error in (
        PayloadTooLargeError,
        ServiceUnavailableError,
        UnknownKeysError,
        UnknownModelError,
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

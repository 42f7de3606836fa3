"""What is asked of the server and what it answers, without how it gets there."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from math import inf, nan
from time import monotonic
from typing import TypeAlias, TypeVar

from heinfer.errors import (
    BusyError,
    DeadlineError,
    EvaluationTimeoutError,
    IdempotencyConflictError,
    JobNotDoneError,
    ManifestRequiredError,
    PayloadTooLargeError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
    UnauthorizedError,
    UnknownJobError,
    UnknownKeysError,
    UnknownManifestError,
    UnknownModelError,
    UnknownUploadError,
    UploadDigestError,
    UploadIncompleteError,
    UploadOffsetError,
    WorkerFailedError,
)
from heinfer_client.trust import claims_to_be_manifest

MAX_SMALL_BYTES = 1 << 16
"""Length that an answer may have when nothing says otherwise: problems, and ids of keys."""

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Attributes:
        method: GET, POST, PATCH or DELETE.
        path: below the server's URL, quoted.
        query: parameters, not quoted.
        body: None for none.
        limit: bytes that the answer may have.
        upload: what the progress bar says while the body goes out; none is shown when it is empty.
        idempotency_key: under which it may come several times and counts once; none when it is empty.
        seconds: that it may take in all, where that is less than any request may.
    """

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    limit: int = MAX_SMALL_BYTES
    upload: str = ""
    seconds: float = inf
    idempotency_key: str = ""


@dataclass(frozen=True)
class Reply:
    """One HTTP answer: status, the headers that matter (empty when absent), the body, and what was asked with.

    Attributes:
        has_api_key: whether the request had an API key.
    """

    status: int
    body: bytes
    server_timing: str = ""
    retry_after: str = ""
    expected: str = ""
    has_api_key: bool = False


@dataclass(frozen=True)
class Pause:
    """Seconds to wait."""

    seconds: float


@dataclass(frozen=True)
class Alone:
    """A flow to be run to its end while no other flow of the same client is run so; it changes what they share."""

    flow: Flow[None]


Flow: TypeAlias = Generator[Request | Pause | Alone, Reply | None, T]
"""Asks by yielding a request and is sent the reply, waits by yielding a pause, and returns its result.

What goes wrong with a step is thrown into it: ServiceUnavailableError where no reply came, and whatever a flow that was
to be run alone raises. So is KeyboardInterrupt or CancelledError when its user
wants it to stop; one request that it yields then is still sent, as a farewell.
"""


def ask(request: Request) -> Flow[Reply]:
    """Ask and return the reply."""
    reply = yield request
    assert reply is not None
    return reply


def ask_until_taken(request: Request, seconds: float) -> Flow[Reply]:
    """Ask, and ask again while the service says that it is busy, as late as it says; returns the last reply.

    Args:
        seconds: that all of it may take.
    """
    ends = monotonic() + seconds
    failures = 0
    while True:
        reply = yield from ask(replace(request, seconds=ends - monotonic()))
        if reply.status not in _COME_BACK:
            return reply
        pause = pause_before_retry(failures, retry_after_seconds(reply))
        if monotonic() + pause >= ends:
            return reply
        yield Pause(pause)
        failures += 1


def pause_before_retry(failures: int, wanted: float | None) -> float:
    """Seconds to wait: at least what the service wants, and by chance more, so that clients do not return together.

    Args:
        failures: how often nothing has come of it so far; each doubles the pause.
    """
    backoff = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10))  # no power that is no float any more
    least = backoff / 2 if wanted is None else wanted
    return least + random.uniform(0, backoff / 2)  # noqa: S311 - no secret


def retry_after_seconds(reply: Reply) -> float | None:
    """Seconds that a Retry-After header names; None when it names none, or more than a day."""
    return float(reply.retry_after) if re.fullmatch(r"[0-9]{1,5}", reply.retry_after) else None


_COME_BACK = frozenset({429})

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0
"""Between two tries that the service says nothing of, in seconds."""

TRIES = 6
"""How often in a row nothing may come of a request before what it is for is given up."""

_BY_CODE: dict[str, type[ServiceError]] = {
    error.code: error
    for error in (
        PayloadTooLargeError,
        ServiceUnavailableError,
        UnauthorizedError,
        ManifestRequiredError,
        UnknownKeysError,
        UnknownManifestError,
        UnknownModelError,
        UnknownUploadError,
        UploadDigestError,
        UploadIncompleteError,
        UploadOffsetError,
        WorkerFailedError,
        EvaluationTimeoutError,
        DeadlineError,
        UnknownJobError,
        JobNotDoneError,
        IdempotencyConflictError,
    )
}

_BUSY: dict[str, type[BusyError]] = {error.code: error for error in (BusyError, RateLimitedError)}


_WHERE = "as api_key= (heinfer predict: --api-key) or in HEINFER_API_KEY"
_NO_API_KEY = f"the service needs an API key: give one {_WHERE}"
_WRONG_API_KEY = f"the service does not take this API key (wrong or revoked): give another {_WHERE}"


def require_success(reply: Reply) -> None:
    """Raise the error that the server's problem+json names, unless the reply is a success."""
    if 200 <= reply.status < 300:
        return
    code, detail, request_id = _problem(reply.body)
    where = f" (request {request_id})" if request_id else ""
    if code == UnauthorizedError.code:  # the service speaks of a header, which is not what its user has to give
        detail = _WRONG_API_KEY if reply.has_api_key else _NO_API_KEY
    text = f"{detail or f'the service answered with HTTP status {reply.status}'}{where}"
    if code in _BUSY:
        raise _BUSY[code](text, status=reply.status, code=code, retry_after=retry_after_seconds(reply))
    raise _BY_CODE.get(code, ServiceError)(text, status=reply.status, code=code or None)


def require_service(reply: Reply, url: str) -> None:
    """ServiceError when what was asked for a manifest is no heinfer service, or is one under another path."""
    if 200 <= reply.status < 300:
        is_service = claims_to_be_manifest(reply.body)
    else:
        is_service = reply.status != HTTPStatus.NOT_FOUND or _problem(reply.body)[0] not in ("", "not-found")
    if not is_service:
        raise ServiceError(f"there is no heinfer service at {url}: check the address", status=reply.status)


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


def expected_seconds(reply: Reply) -> float:
    """Seconds that the service expects an evaluation to take; 0 when it does not say."""
    return float(reply.expected) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", reply.expected) else 0.0


def evaluation_seconds(reply: Reply) -> float:
    """Seconds that the Server-Timing header names as the evaluation's; NaN when it does not."""
    for metric in reply.server_timing.split(","):
        name, _, rest = metric.strip().partition(";")
        key, _, value = rest.partition("=")
        if name == "evaluation" and key == "dur":
            return float(value) / 1000 if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else nan
    return nan

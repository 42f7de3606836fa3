"""What is asked of the server and what it answers, without how it gets there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import inf, nan
from typing import NamedTuple
from urllib.parse import quote

from heinfer import errors
from heinfer.brief import brief_repr
from heinfer.errors import BusyError, ServiceError, ServiceUnavailableError, UnauthorizedError
from heinfer_client.trust import claims_to_be_manifest

MAX_SMALL_BYTES = 1 << 16
"""Length that an answer may have when nothing says otherwise: problems, and ids of keys."""


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

    __repr__ = brief_repr


@dataclass(frozen=True)
class Reply:
    """One HTTP answer: status, the headers that matter (empty when absent), the body, and what was asked with.

    Attributes:
        has_api_key: whether the request had an API key.
        moved_to: the address that a redirection names, which may be shown; empty when it names none.
    """

    status: int
    body: bytes
    server_timing: str = ""
    retry_after: str = ""
    expected: str = ""
    has_api_key: bool = False
    moved_to: str = ""

    __repr__ = brief_repr

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


_OWN = (errors.InsecureConnectionError, errors.ModelChangedError, errors.WrongAnswerError)
"""What a client alone can say."""

_KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServiceError)]

_BY_CODE: dict[str, type[ServiceError]] = {
    **{kind.code: kind for kind in _KINDS if kind not in _OWN},
    **dict.fromkeys(("request-timeout", "not-ready"), ServiceUnavailableError),
}
"""Those that are a ServiceUnavailableError refuse for now: the same request may be taken the next time."""

_WHERE = "as api_key= (heinfer predict: --api-key) or in HEINFER_API_KEY"
_NO_API_KEY = f"the service needs an API key: give one {_WHERE}"
_WRONG_API_KEY = f"the service does not take this API key (wrong or revoked): give another {_WHERE}"


_PASSING_STATUSES = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""What a proxy answers while the service behind it is away; of the service itself its code is what counts."""


def model_path(model: str) -> str:
    """Below what a model is served."""
    return f"/models/{quote(model, safe='')}"


def require_success(reply: Reply) -> None:
    """Raise the error that the server's problem+json names, unless the reply is a success."""
    if not reply.is_success:
        raise _refusal(reply)


def passing_refusal(reply: Reply) -> ServiceUnavailableError | None:
    """The error of a reply by which the service, or a proxy before it, refuses for now only; None of any other."""
    error = None if reply.is_success else _refusal(reply)
    return error if isinstance(error, ServiceUnavailableError) else None


def require_service(reply: Reply, url: str) -> None:
    """ServiceError when what was asked for a manifest is no heinfer service, or is one under another path."""
    if reply.is_success:
        is_service = claims_to_be_manifest(reply.body)
    else:
        is_service = reply.status != HTTPStatus.NOT_FOUND or _problem(reply.body).code not in ("", "not-found")
    if not is_service:
        raise ServiceError(f"there is no heinfer service at {url}: check the address", status=reply.status)


def _refusal(reply: Reply) -> ServiceError:
    problem, status, retry_after = _problem(reply.body), reply.status, retry_after_seconds(reply)
    if 300 <= status < 400:
        return ServiceError(_moved(reply), status=status)
    if status in _PASSING_STATUSES and not problem.is_ours:
        passing = BusyError if status == HTTPStatus.TOO_MANY_REQUESTS else ServiceUnavailableError
        text = f"a proxy before the service answered with HTTP status {status}: is the service running behind it?"
        return passing(text, status=status, retry_after=retry_after)
    detail = problem.detail
    if problem.code == UnauthorizedError.code:  # the service speaks of a header, which is not what its user has to give
        detail = _WRONG_API_KEY if reply.has_api_key else _NO_API_KEY
    where = f" (request {problem.request_id})" if problem.request_id else ""
    text = f"{detail or f'the service answered with HTTP status {status}'}{where}"
    kind = _BY_CODE.get(problem.code, ServiceError)
    if issubclass(kind, ServiceUnavailableError):
        return kind(text, status=status, code=problem.code, retry_after=retry_after)
    return kind(text, status=status, code=problem.code or None)


def _moved(reply: Reply) -> str:
    where = f" to {reply.moved_to}" if reply.moved_to else ""
    return (
        f"the address leads elsewhere{where} (HTTP status {reply.status}), and nothing is sent on, an API key least of "
        "all: give the address of the service itself"
    )


class _Problem(NamedTuple):
    """A problem+json body, as far as it is one."""

    code: str = ""
    detail: str = ""
    request_id: str = ""
    is_ours: bool = False


def _problem(body: bytes) -> _Problem:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return _Problem()
    code, detail, request_id, kind = (_printable(found.get(name)) for name in ("code", "detail", "request_id", "type"))
    is_ours = code in _BY_CODE or kind.startswith("urn:heinfer:problem:")
    return _Problem(code, detail, request_id, is_ours)


def retry_after_seconds(reply: Reply) -> float | None:
    """Seconds that a Retry-After header names, or that are left until its date; None when it names none."""
    if re.fullmatch(r"[0-9]{1,18}", reply.retry_after):
        return float(reply.retry_after)
    try:
        date = parsedate_to_datetime(reply.retry_after)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


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

"""Errors as problem+json (RFC 9457): which HTTP status and which stable code each one has."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from heinfer.errors import (
    ApiKeyExpiredError,
    BackendError,
    BusyError,
    DeadlineError,
    EvaluationTimeoutError,
    FormatError,
    HeinferError,
    IdempotencyConflictError,
    JobNotDoneError,
    ManifestRequiredError,
    PayloadTooLargeError,
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
from heinfer_server.errors import (
    AmbiguousLengthError,
    ForeignOriginError,
    HeadTooLargeError,
    MisdirectedError,
    NotReadyError,
    SlowBodyError,
    StorageError,
)
from heinfer_server.telemetry.logs import error_code, error_reason

MEDIA_TYPE = "application/problem+json"
INTERNAL_ERROR = "internal-error"
RETRY_AFTER_SECONDS = 1


_STATUS: dict[type[HeinferError], HTTPStatus] = {
    UnknownModelError: HTTPStatus.NOT_FOUND,
    ManifestRequiredError: HTTPStatus.BAD_REQUEST,
    UnknownManifestError: HTTPStatus.CONFLICT,
    UnknownKeysError: HTTPStatus.NOT_FOUND,
    UnknownUploadError: HTTPStatus.NOT_FOUND,
    UploadOffsetError: HTTPStatus.CONFLICT,
    UploadIncompleteError: HTTPStatus.CONFLICT,
    UploadDigestError: HTTPStatus.BAD_REQUEST,
    StorageError: HTTPStatus.INSUFFICIENT_STORAGE,
    PayloadTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    SlowBodyError: HTTPStatus.REQUEST_TIMEOUT,
    AmbiguousLengthError: HTTPStatus.BAD_REQUEST,
    HeadTooLargeError: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    MisdirectedError: HTTPStatus.MISDIRECTED_REQUEST,
    ForeignOriginError: HTTPStatus.FORBIDDEN,
    UnauthorizedError: HTTPStatus.UNAUTHORIZED,
    ApiKeyExpiredError: HTTPStatus.UNAUTHORIZED,
    BusyError: HTTPStatus.TOO_MANY_REQUESTS,
    ServiceUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    EvaluationTimeoutError: HTTPStatus.GATEWAY_TIMEOUT,
    DeadlineError: HTTPStatus.GATEWAY_TIMEOUT,
    UnknownJobError: HTTPStatus.NOT_FOUND,
    JobNotDoneError: HTTPStatus.CONFLICT,
    IdempotencyConflictError: HTTPStatus.CONFLICT,
    NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    WorkerFailedError: HTTPStatus.SERVICE_UNAVAILABLE,
    FormatError: HTTPStatus.BAD_REQUEST,
    # Well-formed ciphertexts that cancel out on the way, say: SEAL refuses to go on with a transparent one.
    BackendError: HTTPStatus.UNPROCESSABLE_ENTITY,
}

ALARMING = (INTERNAL_ERROR, WorkerFailedError.code, EvaluationTimeoutError.code, StorageError.code)
"""Codes of errors that an operator has to see to."""

_COME_BACK = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})
_CLOSES_CONNECTION = frozenset({HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT})


class Problem(BaseModel):
    """The body of every error."""

    type: str = Field(examples=["urn:heinfer:problem:unknown-model"])
    title: str = Field(examples=["Unknown model"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no such model here: GET /models lists them"])
    code: str = Field(description="stable: programs may act on it", examples=["unknown-model"])
    request_id: str = Field(examples=["9f86d081884c7d65"])


def status_of(error: HeinferError) -> HTTPStatus:
    """HTTP status of an error that may be told to a client; 500 for one that may not."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def public_code(error: HeinferError) -> str:
    """The code of an error that a client may know."""
    return INTERNAL_ERROR if status_of(error) is HTTPStatus.INTERNAL_SERVER_ERROR else error.code


def problem_of(error: HeinferError, request_id: str) -> Response:
    """The answer to a request that failed with `error`; one without a status of its own says nothing of its cause."""
    status = status_of(error)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        answer = internal_problem(request_id)
        error_reason.set(f"{error.code}: {error}")  # the log may know
        return answer
    answer = problem(status, error.code, str(error), request_id)
    if isinstance(error, BusyError) and error.retry_after is not None:
        answer.headers["Retry-After"] = f"{error.retry_after:.0f}"
    return answer


def internal_problem(request_id: str) -> Response:
    """The answer to a request that failed for a reason that is not the client's to know."""
    detail = "the service failed; its log has the cause under the request id"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR, detail, request_id)


def malformed_problem(detail: str, request_id: str) -> Response:
    """The answer to bytes that are no HTTP request."""
    return problem(HTTPStatus.BAD_REQUEST, "malformed-request", detail, request_id)


def problem(status: HTTPStatus, code: str, detail: str, request_id: str) -> Response:
    """A problem+json response; the request's line in the log has its code and detail, and the metrics its code."""
    error_code.set(code)
    error_reason.set(detail)
    body = Problem(
        type=f"urn:heinfer:problem:{code}",
        title=code.replace("-", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
    )
    headers: dict[str, str] = {}
    if status in _COME_BACK:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in _CLOSES_CONNECTION:  # the rest of the body is on its way, and nobody will read it
        headers["Connection"] = "close"
    return Response(body.model_dump_json(), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the problems a route answers with."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        int(status): {"model": Problem, "description": status.phrase, "content": {MEDIA_TYPE: schema}}
        for status in statuses
    }

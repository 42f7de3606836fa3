"""What both clients' ways of sending share: time-outs, chunks, headers, typed errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from numbers import Real
from threading import TIMEOUT_MAX

import httpx

from heinfer.errors import InsecureConnectionError, ServiceUnavailableError, SettingError
from heinfer_client.address import Address
from heinfer_client.messages import Request

DEADLINE = 900.0
"""Seconds that a request may take in all unless the user says otherwise."""

_LONGEST_TIMEOUT = 86400.0
"""That a service takes note of."""

CHUNK = 1 << 16

_NO_TLS = "the service may speak http, not https"
_OTHER_HOST = "its certificate is for another host: give the URL with a name that it is for"
_UNTRUSTED = (
    "its certificate is signed by nobody who is trusted here: of an authority of your own give the certificate as ca= "
    "(heinfer predict: --ca)"
)
_CLIENT_UNKNOWN = (
    "the service wants a certificate of the client, or another one: give it as certificate= (heinfer predict: "
    "--certificate)"
)
_TLS_TROUBLES = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "certificate has expired": "its certificate has to be renewed",
    "ostname mismatch": _OTHER_HOST,
    "IP address mismatch": _OTHER_HOST,
    "CERTIFICATE_VERIFY_FAILED": _UNTRUSTED,
    "ALERT_CERTIFICATE_REQUIRED": _CLIENT_UNKNOWN,
    "ALERT_BAD_CERTIFICATE": _CLIENT_UNKNOWN,
    "ALERT_UNKNOWN_CA": _CLIENT_UNKNOWN,
}
"""What OpenSSL says, and what it means; the first that fits."""


def checked_timeout(seconds: float) -> float:
    """Seconds that one request may take; SettingError when they are none."""
    if not isinstance(seconds, Real) or not 0 < seconds <= TIMEOUT_MAX:
        raise SettingError(f"the time-out must be a number of seconds above 0, not {seconds!r}")
    return float(seconds)


def chunks(body: bytes) -> Iterator[bytes]:
    """A body in pieces, so that a progress bar can follow."""
    view = memoryview(body)
    return (bytes(view[start : start + CHUNK]) for start in range(0, len(body), CHUNK))


def headers_of(request: Request) -> dict[str, str]:
    """Headers of a request: how long its sender waits, and what its body needs that goes out in pieces."""
    seconds = min(max(request.seconds, 0.001), _LONGEST_TIMEOUT)
    headers = {} if request.seconds == inf else {"Heinfer-Timeout": f"{seconds:.3f}"}
    if request.idempotency_key:
        headers["Idempotency-Key"] = request.idempotency_key
    if request.body is None:
        return headers
    return headers | {"Content-Length": str(len(request.body)), "Content-Type": "application/octet-stream"}


@contextmanager
def transport_errors(address: Address, seconds: float) -> Iterator[None]:
    """Turn httpx's errors, and that a request took longer than `seconds`, into ServiceUnavailableError.

    InsecureConnectionError where TLS is what fails: it would the next time too.
    """
    where = address.url + (f" through the proxy {address.proxy}" if address.proxy else "")
    try:
        yield
    except TimeoutError as error:
        raise ServiceUnavailableError(
            f"no whole answer from {where} within {seconds:g} seconds: try again later, or give a longer timeout"
        ) from error
    except (httpx.HTTPError, OSError) as error:  # OSError: of TLS, on which anyio waits, httpx lets some through
        cause = _cause(error)
        trouble = next((meaning for sign, meaning in _TLS_TROUBLES.items() if "SSL" in cause and sign in cause), None)
        if trouble is not None:
            raise InsecureConnectionError(f"no answer from {where} ({cause}): {trouble}") from error
        hint = "is the service running there?"
        if address.proxy:
            hint = "is the proxy, which the environment names, running? NO_PROXY=HOST goes without it"
        raise ServiceUnavailableError(f"no answer from {where} ({cause}): {hint}") from error


def _cause(error: httpx.HTTPError | OSError) -> str:
    """What httpx says, where that is none of the bytes that came."""
    if isinstance(error, httpx.ProxyError):
        return "the proxy refuses"
    if isinstance(error, httpx.RemoteProtocolError):
        return "the connection ended, or what came is no HTTP"
    return str(error) or type(error).__name__

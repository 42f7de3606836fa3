"""Requests that are refused by their heads alone, before anything else is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from heinfer_server.errors import AmbiguousLengthError, ForeignOriginError, MisdirectedError
from heinfer_server.settings import is_loopback
from heinfer_server.telemetry.logs import request_id
from heinfer_server.web.problems import problem_of

Fault = AmbiguousLengthError | MisdirectedError | ForeignOriginError


class RefusalMiddleware:
    """Answers a request whose head has a fault, and closes the connection: what follows may not be the body."""

    def __init__(self, app: ASGIApp, fault: Callable[[Scope], Fault | None]) -> None:
        self._app = app
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._fault(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        response = problem_of(error, request_id.get())
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


def ambiguous_length(scope: Scope) -> Fault | None:
    """Of a head with two lengths of its body: a proxy may take one for its end, and the rest of it for a request."""
    names = {name for name, _ in scope["headers"]}
    if b"transfer-encoding" in names and (b"content-length" in names or scope["http_version"] == "1.0"):
        # RFC 9112, 6.1
        return AmbiguousLengthError("a body has either a Content-Length or a Transfer-Encoding of HTTP/1.1: send one")
    return None


def not_for_this_machine(scope: Scope) -> Fault | None:
    """Of a request to a service without API keys that names another host, or comes from a page of one.

    A page may have its own name lead to a loopback address, and ask as its own service then; and it may send, though
    not read, across origins. Browsers say in both cases whom they mean, and who sends neither header is no browser.
    """
    if not all(_is_here(b"//" + value) for name, value in scope["headers"] if name == b"host"):
        return MisdirectedError(
            "without API keys the service answers to localhost, 127.0.0.1 and [::1] alone: ask for it by one of these"
        )
    if not all(_is_here(value) for name, value in scope["headers"] if name == b"origin"):
        return ForeignOriginError("without API keys the service answers no page of another machine's")
    return None


def _is_here(address: bytes) -> bool:
    """Whether an address is of this machine, whatever its port."""
    try:
        return is_loopback(urlsplit(address.decode("latin-1")).hostname or "")
    except ValueError:
        return False

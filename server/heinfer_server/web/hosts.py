"""Whom a service without API keys is for: who means this machine. A page in its browser may lead others here."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from heinfer_server.errors import ForeignOriginError, MisdirectedError
from heinfer_server.settings import is_loopback
from heinfer_server.telemetry.logs import request_id
from heinfer_server.web.problems import problem_of


class LoopbackMiddleware:
    """Refuses requests that name another host, or come from a page of one.

    A page may have its own name lead to a loopback address, and ask as its own service then; and it may send, though
    not read, across origins. Browsers say in both cases whom they mean, and who sends neither header is no browser.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = _fault(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            await problem_of(error, request_id.get())(scope, receive, send)


def _fault(scope: Scope) -> MisdirectedError | ForeignOriginError | None:
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

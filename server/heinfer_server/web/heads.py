"""Heads of requests: refused before anything else when a proxy may read them otherwise."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from heinfer_server.errors import AmbiguousLengthError
from heinfer_server.telemetry.logs import request_id
from heinfer_server.web.problems import problem_of


class HeadMiddleware:
    """Answers a request whose head is wrong, and closes the connection: what follows may not be the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = _fault(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        response = problem_of(error, request_id.get())
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


def _fault(scope: Scope) -> AmbiguousLengthError | None:
    names = {name for name, _ in scope["headers"]}
    if b"transfer-encoding" in names and (b"content-length" in names or scope["http_version"] == "1.0"):
        # Two readers may take two ends for the body, and the rest of it for a request (RFC 9112, 6.1).
        return AmbiguousLengthError("a body has either a Content-Length or a Transfer-Encoding of HTTP/1.1: send one")
    return None

"""Admission of requests: who asks is known before anything of a body is read."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heinfer.errors import RateLimitedError, UnauthorizedError
from heinfer_server.admission.access import Access
from heinfer_server.telemetry.logs import request_id, tenant_name
from heinfer_server.web.prefix import OPENAPI_PATH
from heinfer_server.web.problems import problem_of

OPEN_PATHS = frozenset({"/healthz", "/readyz", OPENAPI_PATH})
"""What says nothing of anybody is told to everybody."""


class AccessMiddleware:
    """Admits a request before anything of its body is read.

    Routes find who asks in `request.state.tenant`, and the names of the models that it may ask for (None for all) in
    `request.state.models`.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            who = self._access.admit(_bearer(scope))
        except (UnauthorizedError, RateLimitedError) as error:
            await problem_of(error, request_id.get())(scope, receive, send)
            return
        scope.setdefault("state", {}).update(tenant=who.id, models=who.models)
        tenant_name.set(who.name)

        async def counted_receive() -> Message:
            message = await receive()
            self._access.spend(who, len(message.get("body", b"")))
            return message

        async def counted_send(message: Message) -> None:
            self._access.spend(who, len(message.get("body", b"")))
            await send(message)

        await self._app(scope, counted_receive, counted_send)


def _bearer(scope: Scope) -> str:
    """The API key in the head of a request; empty when there is none, or more than one."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return ""
    scheme, _, key = values[0].decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""

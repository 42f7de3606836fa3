"""What surrounds every request: its id, one line in the log, and an answer when all else fails."""

from __future__ import annotations

import logging
import secrets
from time import perf_counter

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heinfer_server.logs import log, request_id, tenant_name
from heinfer_server.problems import internal_problem

_logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-Id"


class RequestMiddleware:
    """Gives a request an id of our own making, logs how it ended, and answers 500 to what nobody expected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token, no_tenant = request_id.set(secrets.token_hex(8)), tenant_name.set("")
        try:
            await self._answer(scope, receive, send)
        finally:
            request_id.reset(token)
            tenant_name.reset(no_tenant)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        status = 0
        sent = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id.get()
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            log(_logger, logging.INFO, "client went away")
        except Exception:
            _logger.exception("unexpected error")
            if status == 0:
                await internal_problem(request_id.get())(scope, receive, send_with_id)
        # The route's pattern, not the path: a path may hold a key id.
        route = getattr(scope.get("route"), "path", None)
        seconds = round(perf_counter() - started, 4)
        log(
            _logger,
            logging.INFO,
            "request",
            method=scope["method"],
            route=route,
            status=status,
            sent=sent,
            seconds=seconds,
        )

"""What surrounds every request: its id, one line in the log, and an answer when all else fails."""

from __future__ import annotations

import logging
import secrets
from asyncio import CancelledError
from collections.abc import Sequence
from time import perf_counter

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heinfer_server.errors import NotReadyError
from heinfer_server.evaluation.disconnect import DisconnectedError
from heinfer_server.telemetry.logs import error_code, error_reason, log, peer, request_id, tenant_name
from heinfer_server.telemetry.metrics import Metrics
from heinfer_server.web.peers import Network, peer_of
from heinfer_server.web.problems import internal_problem, problem_of

_logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-Id"


class RequestMiddleware:
    """Gives a request an id of our own making, and logs how it ended.

    It answers 503 to what outlasts the service, and 500 to what nobody expected.

    Args:
        trusted_proxies: networks of proxies that say whom they ask for.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, trusted_proxies: Sequence[Network] = ()) -> None:
        self._app = app
        self._metrics = metrics
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        no_id = request_id.set(secrets.token_hex(8))
        no_peer = peer.set(peer_of(scope, self._trusted_proxies))
        unset = [(variable, variable.set("")) for variable in (tenant_name, error_code, error_reason)]
        try:
            await self._answer(scope, receive, send)
        finally:
            request_id.reset(no_id)
            peer.reset(no_peer)
            for variable, token in unset:
                variable.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        status = received = sent = 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id.get()
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted_receive, send_with_id)
        except (ClientDisconnect, DisconnectedError):
            error_reason.set("client went away")
        except CancelledError:  # nobody else cancels a request: the service ends, and has waited for it long enough
            if status == 0:
                ends = NotReadyError("the service ended before it was done: send the request again")
                await problem_of(ends, request_id.get())(scope, receive, send_with_id)
        except Exception:
            _logger.exception("unexpected error")
            if status == 0:
                await internal_problem(request_id.get())(scope, receive, send_with_id)
        # The route's pattern, not the path: a path may hold a key id.
        found = scope.get("route")
        route = getattr(found, "path", None)
        # A route is found for any method: one of the sender's making would be a series of its own, and a line as long.
        method = scope["method"] if scope["method"] in (getattr(found, "methods", None) or ()) else ""
        seconds = round(perf_counter() - started, 4)
        code, reason = error_code.get() or None, error_reason.get() or None
        facts = {"route": route, "status": status, "code": code, "reason": reason}
        log(_logger, logging.INFO, "request", method=method, **facts, received=received, sent=sent, seconds=seconds)
        self._count(method, route or "", status, received, sent)

    def _count(self, method: str, route: str, status: int, received: int, sent: int) -> None:
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.received.inc(received)
        self._metrics.sent.inc(sent)
        if error_code.get():
            self._metrics.errors.labels(error_code.get()).inc()

"""Metrics at an address of their own, because they tell of all tenants together: within bounds, as all else is."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from http import HTTPStatus

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from heinfer.errors import SettingError
from heinfer_server.telemetry.logs import log
from heinfer_server.telemetry.metrics import Metrics
from heinfer_server.web.connections import BoundedProtocol
from heinfer_server.web.problems import problem

_logger = logging.getLogger(__name__)

PATH = "/metrics"
MOST_CONNECTIONS = 16
BACKLOG = 16


class MetricsPort:
    """Serves metrics to Prometheus, in the service's own event loop.

    Its address is taken at once, so that nobody loads models in vain; SettingError when that cannot be had.
    """

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        self._app = _application(metrics)
        self._host = host
        self._socket = _bound(host, port)
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self.port: int = self._socket.getsockname()[1]

    async def start(self) -> None:
        """Begin to serve."""
        config = uvicorn.Config(
            self._app, lifespan="off", ws="none", log_config=None, access_log=False, proxy_headers=False
        )
        config.load()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _MetricsProtocol(config=config, server_state=self._state, app_state={}),
            sock=self._socket,
            backlog=BACKLOG,
        )
        log(_logger, logging.INFO, "metrics served", host=self._host, port=self.port)

    async def close(self) -> None:
        """Serve no more; who is in the middle of it is cut off."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._state.connections):
                connection.transport.abort()
            await self._server.wait_closed()
        self._socket.close()


class _MetricsProtocol(BoundedProtocol):
    def most(self) -> int:
        return MOST_CONNECTIONS


def _application(metrics: Metrics) -> ASGIApp:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await (await _answer(metrics, scope))(scope, receive, send)

    return application


async def _answer(metrics: Metrics, scope: Scope) -> Response:
    request_id = secrets.token_hex(8)
    if scope["path"] != PATH:
        return problem(HTTPStatus.NOT_FOUND, "not-found", f"there is nothing here but {PATH}", request_id)
    if scope["method"] != "GET":
        answer = problem(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", f"GET {PATH}", request_id)
        answer.headers["Allow"] = "GET"
        return answer
    return Response(await metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _bound(host: str, port: int) -> socket.socket:
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(BACKLOG)  # or another could take the address before this one serves
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a host"
        raise SettingError(
            f"metrics cannot be served at {host}, port {port} ({reason}): set HEINFER_SERVER_METRICS_PORT "
            "or HEINFER_SERVER_METRICS_HOST"
        ) from None
    return bound

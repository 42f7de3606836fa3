"""Start of the service as a process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EADDRNOTAVAIL, EAFNOSUPPORT
from math import ceil
from types import FrameType
from typing import Any

import uvicorn

from heinfer.errors import SettingError
from heinfer.runtime import BACKENDS, choose_backend, without_native
from heinfer_server.isolation.privileges import hide
from heinfer_server.memory.allocator import give_back_large_blocks
from heinfer_server.models import Models, load_models
from heinfer_server.service import Service
from heinfer_server.settings import Settings
from heinfer_server.telemetry.logs import configure_logging, log
from heinfer_server.web.app import create_app
from heinfer_server.web.connections import BACKLOG, BoundedProtocol

_logger = logging.getLogger(__name__)

_FAMILY_MISSING = (EADDRNOTAVAIL, EAFNOSUPPORT)
_KEEP_ALIVE_SECONDS = 15  # longer than a client keeps an idle connection (httpx: 5), or it would send into a closed one


class _Server(uvicorn.Server):
    """Says in one line when and where it is ready; told to end, lets clients of jobs have their results first."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        log(_logger, logging.INFO, "told to end", signal=signal.Signals(sig).name)
        if self._draining is not None or not self._service.jobs.under_way:  # again, or nothing to wait for
            super().handle_exit(sig, frame)
        else:
            self._draining = asyncio.get_running_loop().create_task(self._drain(sig, frame))

    async def _drain(self, sig: int, frame: FrameType | None) -> None:
        await self._service.drain()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # another has begun to listen there meanwhile
            await self.lifespan.shutdown()
            raise _cannot_listen(self._service.settings, error) from None
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            print(f"heinfer serves {_named(self._service.models)} at {_url(self.config.host, port)}", flush=True)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way, for `drain_seconds` at most, and end the workers.

    Raises:
        SettingError: when the settings do not fit each other, the files or the machine.
        BundleError: when a file is no bundle.
    """
    hide()
    give_back_large_blocks()
    models = load_models(settings.bundles)
    if settings.backend == "auto" and choose_backend() != BACKENDS[0]:
        print(without_native(), file=sys.stderr, flush=True)
    configure_logging()
    with _bound(settings) as sockets:  # before workers load the models, which may take long
        _serve(settings, models, sockets)


def _serve(settings: Settings, models: Models, sockets: list[socket.socket]) -> None:
    app = create_app(settings, models)
    config = uvicorn.Config(
        app,
        host=settings.host,
        http=BoundedProtocol,
        backlog=BACKLOG,
        log_config=None,
        access_log=False,  # it would log key ids: our own line does not
        server_header=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=ceil(settings.drain_seconds),
    )
    with suppress(KeyboardInterrupt):
        _Server(config, app.state.service).run(sockets)


@contextmanager
def _bound(settings: Settings) -> Iterator[list[socket.socket]]:
    """Sockets at the addresses of the settings, that nobody can connect to yet; SettingError when none can be had."""
    with ExitStack() as stack:
        sockets = []
        try:
            host = settings.host or None  # all of them
            found = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for address in dict.fromkeys(found):
                try:
                    sockets.append(stack.enter_context(_bound_to(*address)))
                except OSError as error:  # a machine may lack one family of addresses
                    if error.errno not in _FAMILY_MISSING:
                        raise
            if not sockets:
                raise OSError(EADDRNOTAVAIL, os.strerror(EADDRNOTAVAIL))
        except (OSError, UnicodeError) as error:
            raise _cannot_listen(settings, error) from None
        yield sockets


def _bound_to(family: int, kind: int, protocol: int, _name: str, address: tuple[Any, ...]) -> socket.socket:
    bound = socket.socket(family, kind, protocol)  # asyncio sends without delay only where the protocol is named
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the other family has a socket of its own
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _cannot_listen(settings: Settings, error: OSError | UnicodeError) -> SettingError:
    reason = error.strerror if isinstance(error, OSError) else "no name of a host"
    return SettingError(
        f"the service cannot listen on {settings.host}, port {settings.port} ({reason}): set HEINFER_SERVER_PORT or "
        "HEINFER_SERVER_HOST (--port, --host)"
    )


def _named(models: Models) -> str:
    """Names of what is served, with the versions where there are several."""
    return ", ".join(
        name if len(versions) == 1 else f"{name} in {len(versions)} versions"
        for name, versions in models.by_name.items()
    )


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

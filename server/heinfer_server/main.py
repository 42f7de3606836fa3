"""Start of the service as a process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from errno import EADDRNOTAVAIL, EAFNOSUPPORT
from functools import partial
from math import ceil
from types import FrameType
from typing import Any

import uvicorn

from heinfer.backends import BACKENDS, choose_backend, without_native
from heinfer.errors import SettingError
from heinfer_server.beginning import leave_signals
from heinfer_server.isolation.privileges import hide
from heinfer_server.memory.allocator import give_back_large_blocks
from heinfer_server.models import Models, load_models
from heinfer_server.service import Service
from heinfer_server.settings import Settings
from heinfer_server.telemetry.logs import configure_logging, flush_logs, log
from heinfer_server.telemetry.supervisor import Supervisor
from heinfer_server.web.app import create_app
from heinfer_server.web.connections import BoundedProtocol
from heinfer_server.web.descriptors import Descriptors, share_out

_logger = logging.getLogger(__name__)

_FAMILY_MISSING = (EADDRNOTAVAIL, EAFNOSUPPORT)
_KEEP_ALIVE_SECONDS = 15  # longer than a client keeps an idle connection (httpx: 5), or it would send into a closed one


class _Server(uvicorn.Server):
    """Says when and where it is ready, in one line and to its supervisor, and reloads on SIGHUP.

    Told to end, it lets clients of jobs have their results first; told so while models load, it ends the start.
    """

    def __init__(self, config: uvicorn.Config, service: Service, supervisor: Supervisor) -> None:
        super().__init__(config)
        self._service = service
        self._supervisor = supervisor
        self._ending: asyncio.Task[None] | None = None
        self._to_listen_at: list[socket.socket] = []
        self.has_served = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        reload_soon = partial(asyncio.get_running_loop().call_soon_threadsafe, self._reload)
        signal.signal(signal.SIGHUP, lambda _number, _frame: reload_soon())
        alive = asyncio.create_task(self._supervisor.stay_alive())
        try:
            await super().serve(sockets)
        finally:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            alive.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        log(_logger, logging.INFO, "told to end", signal=signal.Signals(sig).name)
        self._supervisor.ending(2 * self._service.settings.drain_seconds)
        loop = asyncio.get_running_loop()
        if self._ending is None and self.started and self._service.jobs.under_way:
            self._ending = loop.create_task(self._drain(sig, frame))
            return
        super().handle_exit(sig, frame)  # told so again, or nothing to wait for
        if self._ending is None and not self.started:
            self._ending = loop.create_task(self._give_up_start())

    async def _drain(self, sig: int, frame: FrameType | None) -> None:
        await self._service.drain()
        super().handle_exit(sig, frame)

    async def _give_up_start(self) -> None:
        self._to_listen_at.clear()  # or uvicorn would let clients connect for a moment
        self._service.is_ending = True
        await self._service.workers.stop()

    def _reload(self) -> None:
        """Read again what may change while it runs. Standard error is whoever's who started it: it is kept as it is."""
        is_serving = self.has_served and not self.should_exit and self._ending is None
        with self._supervisor.reloading() if is_serving else nullcontext():
            access = self._service.access
            tenants = ("read" if access.reload() else "as before") if access.requires_api_key else "none"
            log(_logger, logging.INFO, "reloaded", tenants=tenants, takes_a_restart="settings, models, software")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            try:
                yield
            finally:
                flush_logs()  # before the signal ends the process, when it is raised again

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._to_listen_at = sockets or []
        loading = asyncio.create_task(self._supervisor.stay_loading())
        try:
            await super().startup(sockets)
        except OSError as error:  # another has begun to listen there meanwhile
            await self.lifespan.shutdown()
            raise _cannot_listen(self._service.settings, error) from None
        finally:
            loading.cancel()
        if self.started and self.servers and not self.should_exit:
            port = self.servers[0].sockets[0].getsockname()[1]
            print(f"heinfer serves {_named(self._service.models)} at {_url(self.config.host, port)}", flush=True)
            self.has_served = True
            self._supervisor.ready()


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way, for `drain_seconds` at most, and end the workers.

    Raises:
        SettingError: when the settings do not fit each other, the files or the machine.
        BundleError: when a file is no bundle.
        KeyboardInterrupt: when SIGINT comes before it serves.
    """
    hide()
    leave_signals()
    supervisor = Supervisor()
    supervisor.loading()
    give_back_large_blocks()
    models = load_models(settings.bundles, settings.trust)
    if settings.backend == "auto" and choose_backend() != BACKENDS[0]:
        print(without_native(), file=sys.stderr, flush=True)
    configure_logging(settings.tenant_requests)
    for model in models:
        log(_logger, logging.INFO, "bundle opened", model=model.name, version=model.version, bundle=model.file_digest)
    with _bound(settings) as sockets:  # before workers load the models, which may take long
        _serve(settings, models, sockets, supervisor)


def _serve(settings: Settings, models: Models, sockets: list[socket.socket], supervisor: Supervisor) -> None:
    descriptors = share_out(settings.workers, len(sockets), settings.metrics_port is not None)
    app = create_app(settings, models)
    config = uvicorn.Config(
        app,
        host=settings.host,
        http=_protocol(descriptors),
        backlog=descriptors.backlog,
        proxy_headers=False,  # uvicorn would believe whoever is on this machine
        log_config=None,
        access_log=False,  # it would log key ids: our own line does not
        server_header=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=ceil(settings.drain_seconds),
    )
    server = _Server(config, app.state.service, supervisor)
    try:
        server.run(sockets)
    except KeyboardInterrupt:
        if not server.has_served:
            raise


def _protocol(descriptors: Descriptors) -> type[BoundedProtocol]:
    class _Protocol(BoundedProtocol):
        def most(self) -> int:
            return descriptors.connections

    return _Protocol


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

"""The service in this process, with real workers, and ways to talk to it without a socket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from bundle_files import save_all
from fastapi import FastAPI
from gated import GatedWorker

from heinfer.formats.bundle import Bundle
from heinfer_server import Settings, create_app
from heinfer_server.evaluation.prefetch import Lane
from heinfer_server.models import load_models

URL = "http://localhost"


class PortalTransport(httpx.BaseTransport):
    """Runs requests of synchronous code in the application's event loop."""

    def __init__(self, portal: BlockingPortal, app: FastAPI) -> None:
        self._portal = portal
        self._inner = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._portal.call(self._handle, request.method, request.url, request.headers, request.read())

    async def _handle(self, method: str, url: httpx.URL, headers: httpx.Headers, body: bytes) -> httpx.Response:
        response = await self._inner.handle_async_request(httpx.Request(method, url, headers=headers, content=body))
        content = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=content)


class Recorded(httpx.BaseTransport):
    """Passes requests on and keeps them."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        return self._inner.handle_request(request)

    @property
    def paths(self) -> list[str]:
        return [request.url.path for request in self.requests]

    def count(self, end: str) -> int:
        return sum(path.endswith(end) for path in self.paths)


class RunningService:
    """An application between its startup and its shutdown."""

    def __init__(self, portal: BlockingPortal, app: FastAPI) -> None:
        self.portal = portal
        self.app = app
        self.transport = PortalTransport(portal, app)
        self.http = httpx.Client(transport=self.transport, base_url=URL)

    @property
    def service(self) -> Any:
        return self.app.state.service

    @property
    def lane(self) -> Lane:
        """The only one: of a service of one worker."""
        (lane,) = self.service.workers.lanes
        return lane

    @property
    def worker(self) -> GatedWorker:
        """The only one."""
        return cast("GatedWorker", self.lane.worker)


@contextmanager
def running_service(folder: Path, models: Sequence[Bundle], **settings: Any) -> Iterator[RunningService]:
    """Serve compiled models from `folder`."""
    paths = save_all(folder, models)
    chosen = Settings(bundles=tuple(paths), **{"workers": 1, "no_auth": "tenants" not in settings, **settings})
    app = create_app(chosen, load_models(chosen.bundles), GatedWorker)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        yield RunningService(portal, app)

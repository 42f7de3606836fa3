"""The application: routes, error answers and lifespan put together."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from heinfer.errors import HeinferError
from heinfer_server.evaluation.worker import Worker
from heinfer_server.gauges import watch
from heinfer_server.models import Models
from heinfer_server.service import Service
from heinfer_server.settings import Settings
from heinfer_server.telemetry.background import for_ever
from heinfer_server.telemetry.logs import log, request_id
from heinfer_server.web.admission import AccessMiddleware
from heinfer_server.web.job_routes import router as job_router
from heinfer_server.web.key_routes import router as key_router
from heinfer_server.web.metrics_port import MetricsPort
from heinfer_server.web.middleware import RequestMiddleware
from heinfer_server.web.prefix import OPENAPI_PATH, PrefixMiddleware, require_unlike
from heinfer_server.web.problems import ALARMING, documented, problem, problem_of
from heinfer_server.web.refusals import RefusalMiddleware, ambiguous_length, not_for_this_machine
from heinfer_server.web.routes import router

_ROUTERS = (router, key_router, job_router)

_ANYWHERE = (HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.TOO_MANY_REQUESTS)
"""How any request may be refused."""

_logger = logging.getLogger(__name__)


def create_app(settings: Settings, models: Models, worker: type[Worker] = Worker) -> FastAPI:
    """The service for these models; its workers run between startup and shutdown.

    Raises:
        SettingError: when the settings do not fit the models or the routes, or the metrics' address is taken.
    """
    require_unlike(settings.root_path, [getattr(route, "path", "") for part in _ROUTERS for route in part.routes])
    service = Service(settings, models, worker)
    watch(service.metrics, service)
    for code in ALARMING:  # there before the first of them: an alert compares with what was
        service.metrics.errors.labels(code)
    metrics_port: MetricsPort | None = None
    if settings.metrics_port is not None:
        metrics_port = MetricsPort(service.metrics, settings.metrics_host, settings.metrics_port)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        background = (service.keep_house, service.follow_tenants, service.metrics.measure)
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(for_ever(work)) for work in background]
        try:
            log(_logger, logging.INFO, "memory predicted", total=service.memory.total, **asdict(service.memory))
            if metrics_port is not None:
                await metrics_port.start()
            # A second's work, which nobody shall have for asking: it is done beside the loading of the models.
            tasks.append(description := asyncio.create_task(asyncio.to_thread(_described, app)))
            await service.start()
            app.state.description = await description
            yield
            await service.jobs.cancel_all()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if metrics_port is not None:
                await metrics_port.close()
            await service.workers.stop()
            service.setup.close()
            await asyncio.to_thread(service.keys.close)

    app = FastAPI(
        title="heinfer",
        summary="Evaluates neural networks on encrypted images; holds no secret key.",
        version=version("heinfer"),
        lifespan=lifespan,
        openapi_url=None,  # it would be written anew for everybody who asks, and there are no pages that show it
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        redirect_slashes=False,  # it would redirect to whatever host the request names
    )
    app.state.service = service
    app.state.metrics_port = metrics_port.port if metrics_port else None
    for part in _ROUTERS:
        app.include_router(part, responses=documented(*_ANYWHERE))
    app.add_route(OPENAPI_PATH, _openapi, include_in_schema=False)
    app.add_middleware(AccessMiddleware, access=service.access)
    app.add_middleware(RefusalMiddleware, fault=ambiguous_length)
    if settings.no_auth:
        app.add_middleware(RefusalMiddleware, fault=not_for_this_machine)
    app.add_middleware(PrefixMiddleware, root_path=settings.root_path)
    # The last one is the outermost.
    app.add_middleware(RequestMiddleware, metrics=service.metrics, trusted_proxies=settings.trusted_proxies)
    app.add_exception_handler(HeinferError, _heinfer_error)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def _described(app: FastAPI) -> bytes:
    return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()


async def _openapi(request: Request) -> Response:
    return Response(request.app.state.description, media_type="application/json")


async def _heinfer_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HeinferError)
    return problem_of(error, request_id.get())


async def _bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    names = sorted({str(entry["loc"][-1]) for entry in error.errors()})  # of our own parameters; never their values
    detail = f"missing or malformed: {', '.join(names)}; {_description(request)} describes the request"
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "bad-request", detail, request_id.get())


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "-")
    detail = f"{_description(request)} describes what this service answers to"
    answer = problem(status, code, detail, request_id.get())
    answer.headers.update(error.headers or {})  # which methods there are, say
    return answer


def _description(request: Request) -> str:
    return f"{request.app.state.service.settings.root_path}{OPENAPI_PATH}"

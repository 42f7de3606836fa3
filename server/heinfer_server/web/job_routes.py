"""The HTTP interface: jobs, for evaluations that take longer than a request should."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi import Path as PathParameter
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from heinfer_server.evaluation.disconnect import Disconnect
from heinfer_server.evaluation.jobs import Job, Result, progress_of
from heinfer_server.evaluation.progress import Watch
from heinfer_server.evaluation.worker import Evaluation
from heinfer_server.telemetry.stages import Stages
from heinfer_server.web.body import REFUSALS, read_body
from heinfer_server.web.dependencies import (
    MANIFEST_HEADER,
    MANIFEST_HEADERS,
    OCTET_SCHEMA,
    OCTETS,
    KeyQuery,
    ManifestQuery,
    ModelQuery,
    Tenant,
    TheService,
    models_of,
    octets_in,
    require_keys,
)
from heinfer_server.web.problems import documented, public_code
from heinfer_server.web.schemas import JobState

router = APIRouter()

_EVENT_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Not to be kept; nor to be held back, by nginx, until there is more."""

JobId = Annotated[str, PathParameter(max_length=64, description="id of a job")]


@router.post(
    "/jobs",
    summary="Begin to evaluate a model on encrypted inputs",
    status_code=HTTPStatus.ACCEPTED,
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        *REFUSALS,
        HTTPStatus.CONFLICT,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    openapi_extra=octets_in("a frame of the encrypted inputs, as the manifest lays them out"),
)
async def begin_job(
    service: TheService,
    tenant: Tenant,
    request: Request,
    response: Response,
    model: ModelQuery,
    keys: KeyQuery,
    manifest: ManifestQuery = None,
    idempotency_key: Annotated[
        str,
        Header(
            pattern=r"^[!-~]{0,128}$",
            description="of the sender's making: the same request under the same key begins one job, however often it "
            "comes",
        ),
    ] = "",
) -> JobState:
    service.require_service()
    served = models_of(request).version(model, manifest)
    require_keys(request, tenant, served, keys)
    stages = Stages(service.metrics)
    with ExitStack() as place:
        place.enter_context(service.evaluations.entered(service.holder(tenant, keys)))
        with stages.timed("body"):
            body = await read_body(request, served.inputs_length, service.settings.body_seconds_per_mib)
        await service.check(served, body, stages)
        asked = (served.digest.encode(), keys.encode(), body)
        # From here on nothing is waited for: the same request that comes meanwhile would begin another job.
        job = service.jobs.find_again(tenant, idempotency_key, *asked) if idempotency_key else None
        if job is None:

            async def work(watch: Watch, withdrawn: Disconnect) -> Result:
                evaluation = Evaluation(served.digest, service.holder(tenant, keys), keys, body, stages, watch=watch)
                with stages.timed("total"):
                    done = await service.workers.evaluate(evaluation, withdrawn)
                return Result(done.frames, stages.header(), served.digest)

            job = service.jobs.begin(tenant, served.name, work, place.pop_all(), idempotency_key, *asked)
    response.headers["Location"] = f"{service.settings.root_path}/jobs/{job.id}"
    return _state(job)


@router.get(
    "/jobs/{job_id}",
    summary="How far a job has come",
    responses=documented(HTTPStatus.NOT_FOUND),
)
async def get_job(service: TheService, tenant: Tenant, request: Request, job_id: JobId) -> JobState:
    return _state(service.jobs.get(tenant, job_id, request.state.models))


@router.get(
    "/jobs/{job_id}/result",
    summary="What a job has come to",
    response_class=Response,
    responses={
        200: {
            "description": "a frame of the encrypted outputs",
            "content": OCTET_SCHEMA,
            "headers": MANIFEST_HEADERS,
        },
        **documented(
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.SERVICE_UNAVAILABLE,
            HTTPStatus.GATEWAY_TIMEOUT,
        ),
    },
)
async def get_result(service: TheService, tenant: Tenant, request: Request, job_id: JobId) -> Response:
    job = service.jobs.get(tenant, job_id, request.state.models)
    result = job.outcome()
    job.is_fetched = True
    headers = {"Server-Timing": result.timing, MANIFEST_HEADER: result.manifest}
    return Response(result.frames, media_type=OCTETS, headers=headers)


@router.get(
    "/jobs/{job_id}/events",
    summary="How far a job comes, as server-sent events until it is over",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "events named `progress`, whose data are those of GET /jobs/{job_id}; a comment where "
            "nothing changes for 15 s",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(HTTPStatus.NOT_FOUND),
    },
)
async def get_events(service: TheService, tenant: Tenant, request: Request, job_id: JobId) -> StreamingResponse:
    job = service.jobs.get(tenant, job_id, request.state.models)
    with ExitStack() as place:
        place.enter_context(service.streams.entered(service.holder(tenant, job.id)))
        return _EventStream(job, place.pop_all())


@router.delete(
    "/jobs/{job_id}",
    summary="Cancel a job, and forget it",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(HTTPStatus.NOT_FOUND),
)
async def cancel_job(service: TheService, tenant: Tenant, request: Request, job_id: JobId) -> None:
    service.jobs.cancel(tenant, job_id, request.state.models)


class _EventStream(StreamingResponse):
    """Events of a job; its place is free again when it ends or its client goes away."""

    def __init__(self, job: Job, place: ExitStack) -> None:
        super().__init__(_events(job), media_type="text/event-stream", headers=_EVENT_HEADERS)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


async def _events(job: Job) -> AsyncIterator[str]:
    async for is_news in progress_of(job):
        yield f"event: progress\ndata: {_state(job).model_dump_json()}\n\n" if is_news else ": nothing new\n\n"


def _state(job: Job) -> JobState:
    code = None if job.error is None else public_code(job.error)
    return JobState(job=job.id, state=job.state, progress=job.progress, code=code)

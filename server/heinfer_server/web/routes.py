"""The HTTP interface: models and inference."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from heinfer.formats.manifest import Manifest
from heinfer_server.errors import NotReadyError
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
    Model,
    ModelQuery,
    Tenant,
    TheService,
    Timeout,
    end_of,
    models_of,
    octets_in,
    require_keys,
)
from heinfer_server.web.disconnect import disconnect_of
from heinfer_server.web.problems import documented
from heinfer_server.web.schemas import Health, ModelList, ModelSummary, Readiness

router = APIRouter()


@router.get("/healthz", summary="Whether the service takes requests")
async def healthz() -> Health:
    return Health()


@router.get(
    "/readyz",
    summary="Whether an evaluation would find a worker",
    responses=documented(HTTPStatus.SERVICE_UNAVAILABLE),
)
async def readyz(service: TheService) -> Readiness:
    if service.is_ending:
        raise NotReadyError("the service is about to end")
    if not service.workers.ready:
        raise NotReadyError("no worker can evaluate: the log says why")
    return Readiness()


@router.get("/models", summary="The models that are served, in all their versions")
async def list_models(service: TheService, request: Request, _tenant: Tenant) -> ModelList:
    models = models_of(request)
    return ModelList(
        models=[
            ModelSummary(
                name=model.name,
                version=model.version,
                digest=model.digest,
                bundle=model.file_digest,
                is_current=model is models.current(model.name),
                manifest=f"{service.settings.root_path}/models/{quote(model.name)}/manifest",
            )
            for model in models
        ]
    )


@router.get(
    "/models/{model}/manifest",
    summary="What a client needs to know of a model: of its current version",
    response_model=Manifest,
    responses={
        200: {
            "headers": {
                "Heinfer-Evaluation-Seconds": {
                    "description": "how long one evaluation is expected to take: when that is long, begin a job",
                    "schema": {"type": "number"},
                }
            }
        },
        **documented(HTTPStatus.NOT_FOUND),
    },
)
async def get_manifest(service: TheService, request: Request, _tenant: Tenant, model: Model) -> Response:
    served = models_of(request).current(model)
    headers = {"Heinfer-Evaluation-Seconds": f"{service.latency.roughly(served.digest):.3f}"}
    return Response(served.manifest, media_type="application/json", headers=headers)


@router.post(
    "/infer",
    summary="Evaluate a model on encrypted inputs",
    response_class=Response,
    responses={
        200: {
            "description": "a frame of the encrypted outputs",
            "content": OCTET_SCHEMA,
            "headers": {
                "Server-Timing": {
                    "description": "milliseconds of every stage: the body's arrival, its check, waiting for a worker, "
                    "the worker, in it loading keys and the evaluation; total is all since the body came",
                    "schema": {"type": "string"},
                    "example": "body;dur=0.4, check;dur=1.1, wait;dur=0.0, worker;dur=25.9, keys;dur=0.0, "
                    "evaluation;dur=24.3, total;dur=27.5",
                },
                **MANIFEST_HEADERS,
            },
        },
        **documented(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            *REFUSALS,
            HTTPStatus.SERVICE_UNAVAILABLE,
            HTTPStatus.GATEWAY_TIMEOUT,
        ),
    },
    openapi_extra=octets_in("a frame of the encrypted inputs, as the manifest lays them out"),
)
async def infer(
    service: TheService,
    tenant: Tenant,
    request: Request,
    model: ModelQuery,
    keys: KeyQuery,
    manifest: ManifestQuery = None,
    seconds: Timeout = None,
) -> Response:
    service.require_service()
    served = models_of(request).version(model, manifest)
    require_keys(request, tenant, served, keys)
    stages = Stages(service.metrics)
    holder, ends = service.holder(tenant, keys), end_of(seconds)
    with service.evaluations.entered(holder):
        with stages.timed("body"):
            body = await read_body(request, served.inputs_length, service.settings.body_seconds_per_mib)
        async with disconnect_of(request) as gone:
            with stages.timed("total"):
                await service.check(served, body, stages)
                evaluation = Evaluation(served.digest, holder, keys, body, stages, ends)
                result = await service.workers.evaluate(evaluation, gone)
    headers = {"Server-Timing": stages.header(), MANIFEST_HEADER: served.digest}
    return Response(result.frames, media_type=OCTETS, headers=headers)

"""The HTTP interface: evaluation keys, whole or in pieces."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from heinfer_server.keys.store import unknown_keys
from heinfer_server.keys.uploads import CHUNK_BYTES, Upload, unknown_upload
from heinfer_server.service import Service
from heinfer_server.web.body import REFUSALS, read_body
from heinfer_server.web.dependencies import (
    KeyId,
    ManifestQuery,
    Model,
    Tenant,
    TheService,
    UploadId,
    may_use,
    models_of,
    octets_in,
)
from heinfer_server.web.problems import documented
from heinfer_server.web.schemas import KeyList, KeySummary, Registration, UploadState

router = APIRouter()


@router.post(
    "/models/{model}/keys",
    summary="Register evaluation keys, whole",
    status_code=HTTPStatus.CREATED,
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        *REFUSALS,
        HTTPStatus.INSUFFICIENT_STORAGE,
    ),
    openapi_extra=octets_in("a frame of exactly the evaluation keys that the manifest lists"),
)
async def register_keys(
    service: TheService,
    tenant: Tenant,
    model: Model,
    request: Request,
    response: Response,
    manifest: ManifestQuery = None,
) -> Registration:
    key_set = models_of(request).version(model, manifest).keys
    async with service.registrations.entered_in_turn(tenant):
        body = await read_body(request, key_set.length, service.settings.body_seconds_per_mib)
        key_id = await service.register(tenant, key_set, body)
    response.headers["Location"] = f"{service.settings.root_path}/keys/{key_id}"
    return Registration(keys=key_id)


@router.get("/keys", summary="The registered evaluation keys")
async def list_keys(service: TheService, request: Request, tenant: Tenant) -> KeyList:
    # Whoever knows an id can use and delete the keys: it is told to nobody who is not told apart from others.
    is_known, models = service.access.requires_api_key, models_of(request)
    return KeyList(
        keys=[
            KeySummary(
                keys=entry.id if is_known else None,
                key_set=entry.key_set,
                models=models.taking(entry.key_set),
                bytes=entry.size,
                created=entry.created,
                used=entry.used,
            )
            for entry in service.keys.of(tenant)
            if may_use(request, entry.key_set)
        ]
    )


@router.delete(
    "/keys/{key_id}",
    summary="Forget evaluation keys",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.INSUFFICIENT_STORAGE),
)
async def delete_keys(service: TheService, tenant: Tenant, request: Request, key_id: KeyId) -> None:
    key_set = service.keys.key_set_of(tenant, key_id)
    if key_set is None or not may_use(request, key_set):
        raise unknown_keys()
    await service.forget(tenant, key_id)


@router.post(
    "/models/{model}/uploads",
    summary="Begin to register evaluation keys in pieces, or go on with it",
    status_code=HTTPStatus.CREATED,
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def begin_upload(
    service: TheService,
    tenant: Tenant,
    model: Model,
    request: Request,
    size: Annotated[int, Query(ge=0, lt=1 << 48, description="bytes of the frame, which the manifest implies")],
    sha256: Annotated[str, Query(pattern="^[0-9a-f]{64}$", description="digest of the frame, hexadecimal")],
    manifest: ManifestQuery = None,
) -> UploadState:
    key_set = models_of(request).version(model, manifest).keys
    upload_id, upload = service.begin_upload(tenant, key_set, sha256, size)
    return UploadState(
        upload=upload_id, size=size, offset=size if upload is None else upload.offset, is_registered=upload is None
    )


@router.get(
    "/uploads/{upload_id}",
    summary="How far an upload has come",
    responses=documented(HTTPStatus.NOT_FOUND),
)
async def get_upload(service: TheService, tenant: Tenant, request: Request, upload_id: UploadId) -> UploadState:
    upload = _upload(service, tenant, request, upload_id)
    return UploadState(upload=upload_id, size=upload.size, offset=upload.offset)


@router.patch(
    "/uploads/{upload_id}",
    summary="Send the next piece of an upload",
    responses=documented(
        HTTPStatus.NOT_FOUND,
        *REFUSALS,
        HTTPStatus.CONFLICT,
    ),
    openapi_extra=octets_in(f"the bytes from the offset on: at most {CHUNK_BYTES}, taken whole or not at all"),
)
async def continue_upload(
    service: TheService,
    tenant: Tenant,
    upload_id: UploadId,
    request: Request,
    offset: Annotated[int, Query(ge=0, lt=1 << 48, description="where the piece begins: where the last one ended")],
) -> UploadState:
    _upload(service, tenant, request, upload_id)
    room = service.uploads.room(tenant, upload_id, offset)
    async with service.registrations.entered_in_turn(tenant):
        piece = await read_body(request, room, service.settings.body_seconds_per_mib)
        upload = service.uploads.append(tenant, upload_id, offset, piece)
    return UploadState(upload=upload_id, size=upload.size, offset=upload.offset)


@router.post(
    "/uploads/{upload_id}",
    summary="Finish an upload: register the keys",
    status_code=HTTPStatus.CREATED,
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.INSUFFICIENT_STORAGE,
    ),
)
async def finish_upload(
    service: TheService, tenant: Tenant, request: Request, upload_id: UploadId, response: Response
) -> Registration:
    key_set = service.keys.key_set_of(tenant, upload_id)  # finished before, and the answer lost
    if key_set is None:
        _upload(service, tenant, request, upload_id)
    elif not may_use(request, key_set):
        raise unknown_upload()
    async with service.registrations.entered_in_turn(tenant):
        key_id = await service.finish_upload(tenant, upload_id)
    response.headers["Location"] = f"{service.settings.root_path}/keys/{key_id}"
    return Registration(keys=key_id)


@router.delete(
    "/uploads/{upload_id}",
    summary="Give up an upload",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(HTTPStatus.NOT_FOUND),
)
async def give_up_upload(service: TheService, tenant: Tenant, request: Request, upload_id: UploadId) -> None:
    _upload(service, tenant, request, upload_id)
    service.uploads.drop(upload_id)


def _upload(service: Service, tenant: str, request: Request, upload_id: str) -> Upload:
    """An upload that the API key of a request may know of; UnknownUploadError when there is none under the id."""
    upload = service.uploads.get(tenant, upload_id)
    if not may_use(request, upload.key_set.digest):
        raise unknown_upload()
    return upload

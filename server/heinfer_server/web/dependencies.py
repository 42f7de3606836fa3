"""Dependencies and parameters that routes share."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Security
from fastapi import Path as PathParameter
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from heinfer.errors import KeySetError
from heinfer_server.keys.store import unknown_keys
from heinfer_server.models import Models, ServedModel
from heinfer_server.service import Service

OCTETS = "application/octet-stream"
OCTET_SCHEMA = {OCTETS: {"schema": {"type": "string", "format": "binary"}}}


MANIFEST_HEADER = "Heinfer-Manifest"
MANIFEST_HEADERS = {
    MANIFEST_HEADER: {
        "description": "SHA-256 of the manifest of the version that answered, hexadecimal",
        "schema": {"type": "string"},
    }
}


def octets_in(description: str) -> dict[str, Any]:
    """OpenAPI's description of a request whose body is frames."""
    return {"requestBody": {"required": True, "description": description, "content": OCTET_SCHEMA}}


async def _service(request: Request) -> Service:  # a plain function would be run in a thread, for every request
    return _service_of(request)


def _service_of(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


def models_of(request: Request) -> Models:
    """Those that the API key of a request may be used for."""
    models, names = _service_of(request).models, request.state.models
    return models if names is None else models.only(names)


def may_use(request: Request, key_set: str) -> bool:
    """Whether the API key of a request may see and change keys of that set, or an upload of some.

    Keys that no model takes any more are for those API keys that may be used for all.
    """
    return request.state.models is None or bool(models_of(request).taking(key_set))


def require_keys(request: Request, tenant: str, model: ServedModel, key_id: str) -> None:
    """Require that a tenant has keys registered of the set that the model takes.

    Raises:
        UnknownKeysError: when there are none under that id (any more) that the API key may know of.
        KeySetError: when they are of another set.
    """
    store = _service_of(request).keys
    key_set = store.key_set_of(tenant, key_id)
    if key_set is not None and not may_use(request, key_set):
        raise unknown_keys()
    if store.find(tenant, key_id).key_set != model.keys.digest:
        raise KeySetError(
            "these evaluation keys are of another key set than this version of the model takes: register keys made "
            "from its manifest"
        )


async def tenant_of(
    request: Request,
    _key: Annotated[
        HTTPAuthorizationCredentials | None,
        Security(HTTPBearer(auto_error=False, description="an API key that `heinfer tenant` made")),
    ],
) -> str:
    """Id of who asks, as AccessMiddleware found it; the key is named here for the description of the interface."""
    tenant = request.state.tenant
    assert isinstance(tenant, str)
    return tenant


def end_of(seconds: float | None) -> float:
    """When so many seconds are over, by the clock of the event loop; never for None."""
    return inf if seconds is None else asyncio.get_running_loop().time() + seconds


Model = Annotated[str, PathParameter(max_length=64, examples=["mnist-ffconv"])]
ModelQuery = Annotated[str, Query(alias="model", max_length=64, examples=["mnist-ffconv"])]
ManifestQuery = Annotated[
    str | None,
    Query(
        alias="manifest",
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the bytes of the manifest that the request is made from, hexadecimal: it says which "
        "version of the model is meant; a request without it is refused",
    ),
]
KeyQuery = Annotated[str, Query(alias="keys", max_length=64, description="id of registered keys")]
KeyId = Annotated[str, PathParameter(max_length=64, description="id of registered keys")]
UploadId = Annotated[str, PathParameter(max_length=64, description="id of an upload")]
TheService = Annotated[Service, Depends(_service)]
Timeout = Annotated[
    float | None,
    Header(
        alias="Heinfer-Timeout",
        gt=0,
        le=86400,
        allow_inf_nan=False,
        description="seconds that the sender waits for the answer: after that, nothing is begun for it",
    ),
]
Tenant = Annotated[str, Depends(tenant_of)]

"""Requests to a service, as a client of a model makes them: they name the manifest that they depend on."""

from __future__ import annotations

import httpx
from tiny_model import tiny_bundle

from heinfer.formats.bundle import Bundle
from heinfer_server.models import digest_of

MODEL = tiny_bundle()


def of(model: Bundle = MODEL, /, **others: str) -> dict[str, str]:
    """The query of a request below a model's path."""
    return {"manifest": digest_of(model.manifest), **others}


def to(key_id: str, model: Bundle = MODEL) -> dict[str, str]:
    """The query of an inference or a job."""
    return of(model, model=model.manifest.name, keys=key_id)


def register(http: httpx.Client, keys: bytes, model: Bundle = MODEL) -> httpx.Response:
    return http.post(f"/models/{model.manifest.name}/keys", params=of(model), content=keys)


def registered(http: httpx.Client, keys: bytes, model: Bundle = MODEL) -> str:
    """Id of keys that the service has taken."""
    key_id: str = register(http, keys, model).json()["keys"]
    return key_id


def infer(http: httpx.Client, key_id: str, body: bytes, model: Bundle = MODEL) -> httpx.Response:
    return http.post("/infer", params=to(key_id, model), content=body)

"""The JSON bodies of the service, but for manifests and problems."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from heinfer_server.evaluation.jobs import State


class ModelSummary(BaseModel):
    """One version of a model in the list of models."""

    name: str = Field(examples=["mnist-ffconv"])
    version: str = Field(examples=["1"])
    digest: str = Field(description="SHA-256 of its manifest, hexadecimal: requests name the version by it")
    bundle: str | None = Field(description="SHA-256 of the file that it was opened from, hexadecimal")
    is_current: bool = Field(description="whether GET /models/{model}/manifest gives the manifest of this version")
    manifest: str = Field(
        description="path of the manifest of the current version", examples=["/models/mnist-ffconv/manifest"]
    )


class ModelList(BaseModel):
    """All models that the service serves, of each the current version first."""

    models: list[ModelSummary]


class Registration(BaseModel):
    """Where registered keys are."""

    keys: str = Field(
        description="id of the keys; whoever knows it can use and delete them",
        examples=["3vT0mPq1Jw0m0yq1l5m7mB0m2nJv3xk9cXkz1o6n4Qk"],
    )


class KeySummary(BaseModel):
    """One set of registered keys."""

    keys: str | None = Field(description="id of the keys; null for who is not told apart from others")
    key_set: str = Field(description="digest of what such keys depend on, hexadecimal")
    models: list[str] = Field(description="names of the models that take them", examples=[["mnist-ffconv"]])
    bytes: int = Field(examples=[9_879_404])
    created: float = Field(description="seconds since the epoch")
    used: float = Field(description="seconds since the epoch; the last request that named them")


class KeyList(BaseModel):
    """All that a tenant has registered, the least recently used first: those go first."""

    keys: list[KeySummary]


class UploadState(BaseModel):
    """How far an upload has come."""

    upload: str = Field(description="id of the upload, and of the keys once they are registered")
    size: int = Field(description="bytes of all of it")
    offset: int = Field(description="where the next piece begins")
    is_registered: bool = Field(default=False, description="whether these keys are registered: then nothing is to send")


class JobState(BaseModel):
    """How far a job has come."""

    job: str = Field(description="id of the job")
    state: State
    progress: float = Field(ge=0, le=1, description="of the evaluation; it begins again when a worker failed")
    code: str | None = Field(default=None, description="of the problem that a failed job ended with")


class Readiness(BaseModel):
    """A worker can evaluate."""

    status: Literal["ready"] = "ready"


class Health(BaseModel):
    """The service takes requests."""

    status: Literal["ok"] = "ok"

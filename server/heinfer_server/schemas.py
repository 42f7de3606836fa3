"""The JSON bodies of the service, but for manifests and problems."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ModelSummary(BaseModel):
    """One model in the list of models."""

    name: str = Field(examples=["mnist-ffconv"])
    version: str = Field(examples=["1"])
    manifest: str = Field(description="path of the manifest", examples=["/models/mnist-ffconv/manifest"])


class ModelList(BaseModel):
    """All models that the service serves."""

    models: list[ModelSummary]


class Registration(BaseModel):
    """Where registered keys are."""

    keys: str = Field(
        description="id of the keys; whoever knows it can use and delete them",
        examples=["3vT0mPq1Jw0m0yq1l5m7mB0m2nJv3xk9cXkz1o6n4Qk"],
    )


class Health(BaseModel):
    """The service takes requests."""

    status: Literal["ok"] = "ok"

"""A version of a model as a client knows it, and what is said of one that is not the right one (any more)."""

from __future__ import annotations

from dataclasses import dataclass

from heinfer.errors import ModelChangedError, UnknownManifestError
from heinfer_client.codec import Codec


@dataclass(frozen=True, eq=False)
class Version:
    """A version of the model.

    Attributes:
        codec: its manifest, put to work.
        digest: of the manifest, as requests name it.
        expected: seconds that an evaluation is expected to take.
    """

    codec: Codec
    digest: str
    expected: float


def stale_version() -> UnknownManifestError:
    return UnknownManifestError("another call of this client has gone on to another version of the model")


def model_changed(model: str, is_pinned: bool) -> ModelChangedError:
    if is_pinned:
        return ModelChangedError(
            f"the service does not have (any more) the version of {model} that this client is pinned to: pin the new "
            "one after a look at it, or leave manifest= off"
        )
    return ModelChangedError(
        f"the version of {model} changed again during one call, or services of several versions answer at this address "
        "in turn: nothing was answered; call again"
    )

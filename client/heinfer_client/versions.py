"""What is said of a version of a model that is not the right one (any more)."""

from __future__ import annotations

from heinfer.errors import ModelChangedError, UnknownManifestError


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

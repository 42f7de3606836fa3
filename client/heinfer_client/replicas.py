"""Services behind one address that share no keys, and versions of a model: what is said of those that differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heinfer.errors import ModelChangedError, ServiceError, UnknownKeysError, UnknownManifestError

LOSSES = 3
"""How often an upload, or a job, may be unknown that has just been begun."""

_SEVERAL = (
    "the address seems to lead to several services that do not share {what}: let the balancer before them send each "
    "client to the same one (sticky routing: hash by the Authorization header or by the client's address)"
)


def several_services(error: ServiceError, what: str) -> ServiceError:
    """The error of what is unknown again and again though it has just been made, and why that may be."""
    text = f"{error}; {_SEVERAL.format(what=what)}"
    return type(error)(text, status=error.status, code=error.server_code)


@contextmanager
def just_registered() -> Iterator[None]:
    """Around what is asked with keys that have been registered a moment ago: UnknownKeysError says why that may be."""
    try:
        yield
    except UnknownKeysError as error:
        raise several_services(error, "keys") from error


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

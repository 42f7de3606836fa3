"""Several services behind one address that do not share keys: told apart from one that has forgotten something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heinfer.errors import ServiceError, UnknownKeysError

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

"""The inference service: evaluates compiled models on encrypted images, and never holds a secret key."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from heinfer.system import require_linux

if TYPE_CHECKING:
    from heinfer_server.main import run
    from heinfer_server.settings import Settings
    from heinfer_server.web.app import create_app

__all__ = ["Settings", "create_app", "run"]

_HOMES = {"Settings": "settings", "create_app": "web.app", "run": "main"}

require_linux()  # said here: what is imported from this package fails elsewhere, each part for a reason of its own


def __getattr__(name: str) -> Any:
    """Import what is asked for: a worker process is of this package, and needs no web framework."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

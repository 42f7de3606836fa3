"""The client: encrypts images, has a service classify them unseen, and decrypts the scores."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heinfer_client.async_client import AsyncClient
    from heinfer_client.client import Client
    from heinfer_client.prediction import Confidence, Prediction

__all__ = ["AsyncClient", "Client", "Confidence", "Prediction"]

_PLACES = {"AsyncClient": "async_client", "Client": "client", "Confidence": "prediction", "Prediction": "prediction"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: files of keys can be looked at where nothing is installed that talks to a service."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

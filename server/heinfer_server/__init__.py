"""The inference service: evaluates compiled models on encrypted images, and never holds a secret key."""

from heinfer_server.app import create_app
from heinfer_server.main import run
from heinfer_server.settings import Settings

__all__ = ["Settings", "create_app", "run"]

"""The inference service: evaluates compiled models on encrypted images, and never holds a secret key."""

from heinfer_server.main import run
from heinfer_server.settings import Settings
from heinfer_server.web.app import create_app

__all__ = ["Settings", "create_app", "run"]

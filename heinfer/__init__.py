"""heinfer: run a neural network on images it is not allowed to see.

``heinfer.compile(module, calibration, ...)`` turns a trained torch module into a program for encrypted images.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heinfer.compiler.compile import CompiledModel, compile, compile_network  # noqa: A004

__all__ = ["CompiledModel", "__version__", "compile", "compile_network"]

__version__ = metadata.version("heinfer")


def __getattr__(name: str) -> object:
    """Import the compiler only when it is asked for: servers and clients live without it."""
    if name in __all__:
        return getattr(import_module("heinfer.compiler.compile"), name)
    raise AttributeError(f"module 'heinfer' has no attribute {name!r}")

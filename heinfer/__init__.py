"""heinfer: run a neural network on images it is not allowed to see.

``heinfer.compile(module, calibration, ...)`` turns a trained torch module into a program for encrypted images,
``heinfer.save`` and ``heinfer.load`` keep it in a file.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING

from heinfer.extras import needs

if TYPE_CHECKING:
    from heinfer.compiler.check import check
    from heinfer.compiler.compile import compile, compile_network  # noqa: A004
    from heinfer.compiler.model import CompiledModel
    from heinfer.formats.bundle import Bundle, load, save
    from heinfer.formats.preprocessing import Preprocessing
    from heinfer.planner.requirements import Limits, Requirements

__all__ = [
    "Bundle",
    "CompiledModel",
    "Limits",
    "Preprocessing",
    "Requirements",
    "__version__",
    "check",
    "compile",
    "compile_network",
    "load",
    "save",
]

__version__ = metadata.version("heinfer")

_HOME = {
    "Bundle": "heinfer.formats.bundle",
    "CompiledModel": "heinfer.compiler.model",
    "Limits": "heinfer.planner.requirements",
    "Preprocessing": "heinfer.formats.preprocessing",
    "Requirements": "heinfer.planner.requirements",
    "check": "heinfer.compiler.check",
    "compile": "heinfer.compiler.compile",
    "compile_network": "heinfer.compiler.compile",
    "load": "heinfer.formats.bundle",
    "save": "heinfer.formats.bundle",
}


def __getattr__(name: str) -> object:
    """Import what is asked for, and only then: servers and clients live without the compiler, and without torch.

    Raises:
        SettingError: when what it needs is not installed.
    """
    if name not in _HOME:
        raise AttributeError(f"module 'heinfer' has no attribute {name!r}")
    with needs("train"):
        return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The border to heinfer-native: whether it is installed, and its module; everything untyped of it stays behind this."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

from heinfer.errors import BackendError, SettingError

LibraryObject: TypeAlias = Any
"""An object of the library; which class it is, the names around it say."""

ISA_VARIABLE = "HEINFER_NATIVE_ISA"
"""Environment variable that forces an instruction set: avx512, avx2 or portable."""


def is_installed() -> bool:
    """Whether the native backend can be used."""
    return find_spec("heinfer_native") is not None


@cache
def library() -> LibraryObject:
    """The module; BackendError when it is not installed."""
    try:
        return import_module("heinfer_native")
    except ImportError as error:
        raise BackendError(
            "the native backend is not installed: make setup builds it, or pip install ./native"
        ) from error


def instruction_set() -> str:
    """The instruction set that the environment asks for, empty for the processor's best.

    Raises:
        SettingError: when this processor does not have it.
    """
    wanted = os.environ.get(ISA_VARIABLE, "")
    there = library().instruction_sets()
    if wanted and wanted not in there:
        raise SettingError(f"{ISA_VARIABLE}={wanted} is not available here; there are {', '.join(there)}")
    return wanted

"""The border to heinfer-native: whether it can be used, and its module; everything untyped of it stays behind this."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

from heinfer.errors import BackendError, SettingError

LibraryObject: TypeAlias = Any
"""An object of the library; which class it is, the names around it say."""

ISA_VARIABLE = "HEINFER_NATIVE_ISA"
"""Environment variable that forces an instruction set: avx512, avx2 or portable."""


FORMAT = 1
"""Of what the library is called with: its arrays, their numbers, its functions (native/src/module.cpp has the same)."""


def native_problem() -> str | None:
    """Why the native backend cannot be used, None when it can."""
    found = _import()
    if not isinstance(found, str):
        built = getattr(found, "FORMAT", 0)
        return None if built == FORMAT else f"heinfer-native is of another heinfer: format {built} instead of {FORMAT}"
    return found


def is_installed() -> bool:
    """Whether the native backend can be used."""
    return native_problem() is None


def library() -> LibraryObject:
    """The module; BackendError when it is not installed, or built for another heinfer."""
    problem = native_problem()
    if problem:
        raise BackendError(f"{problem}: make setup builds it, or pip install ./native")
    return _import()


@cache
def _import() -> LibraryObject | str:
    try:
        return import_module("heinfer_native")
    except ModuleNotFoundError:
        return "heinfer-native is not installed"
    except ImportError as error:  # of another Python, or without a function that is named in it
        return f"heinfer-native cannot be loaded ({error})"


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

"""The border to heinfer-native: whether it can be used, and its module (native/heinfer_native/__init__.pyi)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from heinfer.errors import BackendError, SettingError

if TYPE_CHECKING:
    import heinfer_native

ISA_VARIABLE = "HEINFER_NATIVE_ISA"
"""Environment variable that forces an instruction set: avx512, avx2 or portable."""


FORMAT = 3
"""Of what the library is called with: its arrays, their numbers, its functions (native/src/module.cpp has the same)."""


class Library(Protocol):
    """The module, as far as heinfer uses it."""

    FORMAT: int
    Code: type[heinfer_native.Code]
    Ring: type[heinfer_native.Ring]
    Keys: type[heinfer_native.Keys]
    Control: type[heinfer_native.Control]
    Program: type[heinfer_native.Program]

    def rows_needed(self, code: heinfer_native.Code, rows: int, polynomials: int, count: int) -> tuple[int, int]:
        """Rows of an operation besides those of its values: in the arena, and for every thread.

        Args:
            code: of the operation.
            rows: of its output, of its input for rotations.
            polynomials: of the same value.
            count: of targets.
        """

    def sum_rows_needed(self, kept: int, count: int) -> tuple[int, int]:
        """The same of a sum with `count` constants, of which `kept` (instructions.Kept) is kept."""

    def row_stride(self, n: int) -> int:
        """Words from one row of the arena to the next."""

    def instruction_sets(self) -> list[str]:
        """Those that this processor has, the best first."""

    def expand_seed(self, seed: bytes, n: int, moduli: Sequence[int], kernels: str = "") -> NDArray[np.uint64]:
        """Uniform polynomials (moduli, n), as SEAL expands them."""

    def encode(
        self, ring: heinfer_native.Ring, slots: NDArray[np.float64], scale: float, primes: Sequence[int]
    ) -> NDArray[np.uint32]:
        """Residues (primes, n) of an encoded plaintext."""

    def reduced(
        self, ring: heinfer_native.Ring, coefficients: NDArray[np.int32], primes: Sequence[int]
    ) -> NDArray[np.uint32]:
        """Residues (primes, n), transformed, of a polynomial's coefficients."""


def native_problem() -> str | None:
    """Why the native backend cannot be used, None when it can."""
    found = _import()
    if not isinstance(found, str):
        built = getattr(found, "FORMAT", 0)
        return None if built == FORMAT else f"heinfer-native is of another heinfer: format {built} instead of {FORMAT}"
    return found


def library() -> Library:
    """The module; BackendError when it is not installed, or built for another heinfer."""
    problem, found = native_problem(), _import()
    if problem or isinstance(found, str):
        raise BackendError(f"{problem}: make setup builds it, or pip install ./native")
    return found


@cache
def _import() -> Library | str:
    try:
        return cast("Library", import_module("heinfer_native"))
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

"""What the native library does in one step: larger than a circuit's operations, so that work is shared inside.

A value is a number; a circuit's values keep theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

from heinfer.backends.native.library import library

if TYPE_CHECKING:
    import heinfer_native


@dataclass(frozen=True)
class Residues:
    """Of a value: `rows` of them for each polynomial; an extended value's last one is modulo the special prime."""

    rows: int
    polynomials: int = 2
    extended: bool = False

    @property
    def size(self) -> int:
        """Rows in all."""
        return self.rows * self.polynomials


@dataclass(frozen=True)
class Constant:
    """Number of a circuit's constant and the scale to encode it at."""

    number: int
    scale: float


class Kept(IntEnum):
    """What is kept of a sum's constants: what it multiplies by, or what that is made of in every run."""

    SLOTS = 0  # N / 2 doubles: a Fourier transform, and a transform for each row, in every run
    COEFFICIENTS = 1  # N words: a transform for each row
    RESIDUES = 2  # N words for each row: nothing is left to do


@dataclass(frozen=True)
class Sum:
    """out = sum of values times constants, of values, and of constants; `kept`: of all its constants."""

    out: int
    factors: tuple[tuple[int, Constant], ...] = ()
    addends: tuple[int, ...] = ()
    plains: tuple[Constant, ...] = ()
    kept: Kept = Kept.RESIDUES

    @property
    def constants(self) -> int:
        """Number of constants."""
        return len(self.factors) + len(self.plains)


@dataclass(frozen=True)
class Target:
    """One rotation of several: out = the input rotated by `step`, plus `after` unless that is None."""

    step: int
    out: int
    after: int | None = None


@dataclass(frozen=True)
class Rotations:
    """Rotations of one input with the digits shared; `exact`: with SEAL's own digits, for a single target."""

    input: int
    targets: tuple[Target, ...]
    exact: bool = True


@dataclass(frozen=True)
class Product:
    """out = x y, of three polynomials unless relinearized."""

    out: int
    x: int
    y: int
    relinearized: bool


@dataclass(frozen=True)
class Relinearization:
    """out = input with two polynomials instead of three."""

    out: int
    input: int


@dataclass(frozen=True)
class Division:
    """out = input divided by its last prime, rounded; by the special prime and then the last one when `twice`."""

    out: int
    input: int
    twice: bool = False


@dataclass(frozen=True)
class Extension:
    """out = input times the special prime, extended by a row modulo it."""

    out: int
    input: int


Instruction: TypeAlias = Sum | Rotations | Product | Relinearization | Division | Extension


def outputs_of(instruction: Instruction) -> tuple[int, ...]:
    """Values that an instruction makes."""
    if isinstance(instruction, Rotations):
        return tuple(target.out for target in instruction.targets)
    return (instruction.out,)


def inputs_of(instruction: Instruction) -> tuple[int, ...]:
    """Values that an instruction reads, as often as it does."""
    match instruction:
        case Sum():
            return (*(value for value, _ in instruction.factors), *instruction.addends)
        case Rotations():
            return (instruction.input, *(t.after for t in instruction.targets if t.after is not None))
        case Product():
            return instruction.x, instruction.y
        case _:
            return (instruction.input,)


def steps_of(instruction: Instruction) -> tuple[int, ...]:
    """Steps of the keys that an instruction uses, 0 for relinearization."""
    match instruction:
        case Rotations():
            return tuple(target.step for target in instruction.targets)
        case Product(relinearized=True) | Relinearization():
            return (0,)
        case _:
            return ()


def code_of(instruction: Instruction) -> heinfer_native.Code:
    """Operation of the library that an instruction is."""
    code = library().Code
    match instruction:
        case Sum():
            return code.sum
        case Rotations():
            return code.rotate
        case Product(relinearized=relinearized):
            return code.multiply_relinearize if relinearized else code.multiply
        case Relinearization():
            return code.relinearize
        case Division(twice=twice):
            return code.divide_twice if twice else code.divide
        case Extension():
            return code.extend


def rows_needed(instruction: Instruction, residues: Sequence[Residues]) -> tuple[int, int]:
    """Rows that an instruction needs besides those of its values: in the arena, and for every thread."""
    match instruction:
        case Rotations(value, targets):
            of, count = residues[value], len(targets)
        case Sum(kept=kept):
            return library().sum_rows_needed(kept, instruction.constants)
        case _:
            of, count = residues[instruction.out], 0
    return library().rows_needed(code_of(instruction), of.rows, of.polynomials, count)

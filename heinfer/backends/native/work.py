"""How much a plan has to compute and to read: transforms, multiply-adds, words of keys and of constants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from heinfer.backends.native.instructions import (
    Division,
    Extension,
    Instruction,
    Kept,
    Product,
    Relinearization,
    Residues,
    Rotations,
    Sum,
    steps_of,
)
from heinfer.backends.native.plan import NativePlan


@dataclass(frozen=True)
class Work:
    """Counted in rows of N words.

    Attributes:
        forward: forward transforms.
        inverse: inverse transforms.
        products: multiply-adds of a row with a row.
    """

    forward: int = 0
    inverse: int = 0
    products: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def work_of(instruction: Instruction, residues: Sequence[Residues]) -> Work:
    """Work of an instruction (native/src/operations)."""
    match instruction:
        case Sum(out, factors, kept=kept):
            rows = residues[out].rows
            made = 0 if kept is Kept.RESIDUES else rows * instruction.constants
            return Work(forward=made, products=rows * sum(residues[value].polynomials for value, _ in factors))
        case Rotations(value, targets):
            digits, extended = residues[value].rows, residues[targets[0].out].extended
            division = Work() if extended else _division(2, digits)
            return sum((_products(digits) + division for _ in targets), start=_digits(digits))
        case Product(out, _, _, relinearized):
            own = Work(products=4 * residues[out].rows)
            return own + _relinearization(residues[out].rows) if relinearized else own
        case Relinearization(out):
            return _relinearization(residues[out].rows)
        case Division(out, _, twice):
            polynomials, rows = residues[out].polynomials, residues[out].rows
            special = Work(forward=polynomials, inverse=polynomials) if twice else Work()
            return special + _division(polynomials, rows)
        case Extension(out):
            return Work(products=residues[out].polynomials * (residues[out].rows - 1))


def work_of_all(instructions: Iterable[Instruction], residues: Sequence[Residues]) -> Work:
    """Work of all of them."""
    return sum((work_of(instruction, residues) for instruction in instructions), start=Work())


def key_switches(plan: NativePlan) -> int:
    """Inner products with a key."""
    return sum(len(steps_of(instruction)) for instruction in plan.instructions)


def _digits(rows: int) -> Work:
    return Work(forward=rows * rows, inverse=rows)


def _products(digits: int) -> Work:
    return Work(products=2 * digits * (digits + 1))


def _division(polynomials: int, rows: int) -> Work:
    return Work(forward=polynomials * rows, inverse=polynomials)


def _relinearization(rows: int) -> Work:
    return _digits(rows) + _products(rows) + _division(2, rows)

"""How much a plan has to compute and to read: transforms, multiply-adds, words of keys and of constants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from heinfer.backends.native.instructions import (
    Division,
    Extension,
    Instruction,
    Product,
    Relinearization,
    Rotations,
    Shape,
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


def work_of(instruction: Instruction, shapes: Sequence[Shape]) -> Work:
    """Work of an instruction (native/src/operations)."""
    match instruction:
        case Sum(out, factors):
            return Work(products=shapes[out].rows * sum(shapes[value].polynomials for value, _ in factors))
        case Rotations(value, targets):
            digits, extended = shapes[value].rows, shapes[targets[0].out].extended
            division = Work() if extended else _division(2, digits)
            return sum((_products(digits) + division for _ in targets), start=_digits(digits))
        case Product(out, _, _, relinearized):
            own = Work(products=4 * shapes[out].rows)
            return own + _relinearization(shapes[out].rows) if relinearized else own
        case Relinearization(out):
            return _relinearization(shapes[out].rows)
        case Division(out, _, twice):
            polynomials, rows = shapes[out].polynomials, shapes[out].rows
            special = Work(forward=polynomials, inverse=polynomials) if twice else Work()
            return special + _division(polynomials, rows)
        case Extension(out):
            return Work(products=shapes[out].polynomials * (shapes[out].rows - 1))


def work_of_all(instructions: Iterable[Instruction], shapes: Sequence[Shape]) -> Work:
    """Work of all of them."""
    return sum((work_of(instruction, shapes) for instruction in instructions), start=Work())


def key_bytes_read(plan: NativePlan) -> int:
    """Bytes of keys that a run reads, each at its highest level of use once: what no cache can save."""
    rows = (2 * (level + 1) * (level + 2) for level in plan.key_levels.values())
    return 4 * plan.parameters.ring_degree * sum(rows)


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

"""How a Chebyshev series is evaluated: few products of ciphertexts, in the fewest levels.

With C_n = 2 T_n(u / 2), a polynomial in u whose leading coefficient is one, C_m C_n = C_{m+n} + C_{|m-n|} and C_0 = 2:
no recurrence has a factor. A series p of degree d is split at a power C_m into p = q C_m + r (Paterson and Stockmeyer,
in the Chebyshev basis as Bossuat et al., Eurocrypt 2021, have it). What a product is summed with is multiplied by
plaintexts at the product's level before the one rescale, so that it takes no level; a factor q of degree one is a map
of u and takes the first level, beside C_2. That is ceil(log2(d + 1)) levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations

import numpy as np

from heinfer.brief import brief_repr
from heinfer.costs.tables import CostTable
from heinfer.network.pairs import Vector

_POWERS = range(2, 9)
"""Of which some are made; of a higher one no series of degree 15 has use."""


def depth_of(degree: int) -> int:
    """The levels that a series takes; one of degree one is a map."""
    return degree.bit_length()


@dataclass(frozen=True, eq=False)
class Line:
    """value = product of two values + sum of weights times values + constant, element by element; takes one level.

    Values are numbered: 0 is u, i + 1 what line i makes.

    Attributes:
        name: for reports.
        factors: two values, none for a line without a product.
        weights: of other values, one for each channel.
        constant: one for each channel, None where none is added whatever the coefficients: C_3 = C_2 C_1 - C_1.
        depth: levels from u to its value: as late as what reads it allows.
    """

    name: str
    factors: tuple[int, ...]
    weights: dict[int, Vector]
    constant: Vector | None
    depth: int

    __repr__ = brief_repr

    @property
    def reads(self) -> tuple[int, ...]:
        return (*self.factors, *self.weights)


def lines_of(coefficients: Vector) -> tuple[Line, ...]:
    """The lines that evaluate sum_k coefficients[c, k] T_k(u / 2); the last gives its value.

    Which there are depends on the degree alone.

    Args:
        coefficients: (channels or 1, degree + 1).
    """
    halved = coefficients / 2
    halved[:, 0] = coefficients[:, 0]
    writer = _Writer(_recipe(halved.shape[1] - 1))
    writer.add(writer.line(halved, depth_of(halved.shape[1] - 1), "sum"))
    return writer.late()


def series_price(operations: CostTable, degree: int, level: int) -> float:
    """What a series of one ciphertext costs that is at a level."""
    total, lines = 0.0, lines_of(np.zeros((1, degree + 1)))
    at = [level, *(level - line.depth for line in lines)]
    for line in lines:
        before = level - line.depth + 1
        total += sum(operations("drop_level", on) for value in line.reads for on in range(before + 1, at[value] + 1))
        total += len(line.weights) * operations("hma", before) + operations("rescale", before)
        if line.factors:
            total += operations("square", before) + operations("relinearize", before)
    return total


@dataclass(frozen=True)
class _Recipe:
    """Which powers are made, and where series are split."""

    powers: tuple[int, ...]

    def products(self, degree: int, depth: int) -> float:
        """How many products a series takes besides the powers; infinite when it cannot be in so many levels."""
        if self.is_sum(degree, depth):
            return 0
        return min((self._split(degree, at, depth) for at in self.splits(degree, depth)), default=float("inf"))

    def is_sum(self, degree: int, depth: int) -> bool:
        """Whether it is a sum of powers that are made in time."""
        return depth >= 1 and all(self.is_made(n, depth - 1) for n in range(1, degree + 1))

    def is_made(self, power: int, depth: int) -> bool:
        return (power == 1 or power in self.powers) and _depth_of_power(power) <= depth

    def splits(self, degree: int, depth: int) -> Iterator[int]:
        return (at for at in self.powers if at <= degree < 3 * at and self.is_made(at, depth - 1))

    def best_split(self, degree: int, depth: int) -> int:
        return min(self.splits(degree, depth), key=lambda at: self._split(degree, at, depth))

    def _split(self, degree: int, at: int, depth: int) -> float:
        rest = 0 if self.is_sum(at - 1, depth) else self.products(at - 1, depth - 1)
        return rest + (1 + self.products(degree - at, depth - 1) if degree > at else 0)


def _depth_of_power(power: int) -> int:
    return (power - 1).bit_length()


def _halves(power: int) -> tuple[int, int]:
    """Two powers of which a power is the product, less that of their difference."""
    more = 1 << (power - 1).bit_length() - 1
    return more, power - more


@lru_cache
def _recipe(degree: int) -> _Recipe:
    """The one with the fewest products in the fewest levels."""
    found = []
    for count in range(len(_POWERS) + 1):
        for powers in combinations(_POWERS, count):
            made = {1, *powers}
            needed = {n for power in powers for n in (*_halves(power), abs(_halves(power)[0] - _halves(power)[1]))}
            if needed <= made | {0}:
                found.append((count + _Recipe(powers).products(degree, depth_of(degree)), powers))
    return _Recipe(min(found)[1])


@dataclass
class _Writer:
    """Writes the lines of one series."""

    recipe: _Recipe
    lines: list[Line] = field(default_factory=list)
    powers: dict[int, int] = field(default_factory=lambda: {1: 0})

    def add(self, line: Line) -> int:
        self.lines.append(line)
        return len(self.lines)

    def power(self, n: int) -> int:
        """The value of C_n, of lines that are written when it is first asked for."""
        if n not in self.powers:
            more, less = _halves(n)
            factors = self.power(more), self.power(less)
            weights = {self.power(more - less): np.full(1, -1.0)} if more > less else {}
            constant = np.full(1, -2.0) if more == less else None
            self.powers[n] = self.add(Line(f"T{n}", factors, weights, constant, _depth_of_power(n)))
        return self.powers[n]

    def line(self, series: Vector, depth: int, name: str) -> Line:
        """What evaluates a series (channels, degree + 1) in the basis 1, C_1, C_2, ..."""
        degree = series.shape[1] - 1
        if self.recipe.is_sum(degree, depth):
            return Line(name, (), self._weights(series), series[:, 0], depth)
        at = self.recipe.best_split(degree, depth)
        quotient, rest = _divided(series, at)
        factors: tuple[int, ...] = ()
        weights: dict[int, Vector] = {}
        if degree > at:
            factors = self.add(self.line(quotient, depth - 1, f"{name}/T{at}")), self.power(at)
        else:
            weights[self.power(at)] = quotient[:, 0]
        if self.recipe.is_sum(at - 1, depth):
            weights |= self._weights(rest)
            return Line(name, factors, weights, rest[:, 0], depth)
        weights[self.add(self.line(rest, depth - 1, f"{name}%T{at}"))] = np.ones(1)
        return Line(name, factors, weights, None, depth)

    def _weights(self, series: Vector) -> dict[int, Vector]:
        return {self.power(n): series[:, n] for n in range(1, series.shape[1])}

    def late(self) -> tuple[Line, ...]:
        """The lines, each as late as what reads it allows: at lower levels operations are cheaper."""
        depths = [line.depth for line in self.lines]
        for number in reversed(range(len(self.lines) - 1)):
            readers = (depths[i] for i, line in enumerate(self.lines) if number + 1 in line.reads)
            depths[number] = min(readers) - 1
        return tuple(
            Line(line.name, line.factors, line.weights, line.constant, depth)
            for line, depth in zip(self.lines, depths, strict=True)
        )


def _divided(series: Vector, at: int) -> tuple[Vector, Vector]:
    """q and r of q C_at + r, from C_n = C_{n-at} C_at - C_{|n-2at|}; the series has a degree below 3 at."""
    degree = series.shape[1] - 1
    quotient, rest = series[:, at:].copy(), series[:, :at].copy()
    for n in range(at + 1, degree + 1):
        rest[:, abs(n - 2 * at)] -= series[:, n] * (2 if n == 2 * at else 1)
    return quotient, rest

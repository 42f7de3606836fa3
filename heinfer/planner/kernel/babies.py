"""Candidate sets of baby steps: sums of progressions of which some translate lies mostly inside the wanted shifts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Residues = NDArray[np.int64]
Progression = tuple[int, int]  # step, length
Shape = tuple[Progression, ...]  # babies or giants as a sum of progressions

FREQUENT_STEPS = 8
MANY_SHIFTS = 1024
"""Of more, few baby sets are compared: sizes an eighth apart, about the one that costs least."""
_SHAPES_A_SIZE = 8
_BABIES_A_GIANT = 16
"""Up to so many times may a giant cost what a hoisted baby costs: at most sqrt(16 n) babies are of use."""
_ABOUT = 1.6
"""Of many shifts, baby sets so many times as large or as small as the best may be are compared."""


def shapes_by_size(wanted: Residues, modulus: int) -> list[list[BabyShape]]:
    """Candidate baby sets, those of one size together, the smallest first."""
    by_size: dict[int, list[BabyShape]] = {}
    for shape in _baby_shapes(wanted, modulus, math.isqrt(_BABIES_A_GIANT * wanted.size)):
        by_size.setdefault(shape.size, []).append(shape)
    return [of_size for _, of_size in sorted(by_size.items())]


def cheapest_shapes(wanted: Residues, modulus: int, ratio: float) -> list[BabyShape]:
    """Candidate baby sets for many shifts: those first that may tile them, then those of the lowest bound on the price.

    Args:
        ratio: of what a giant costs to what a baby does.
    """
    best = math.sqrt(ratio * wanted.size)
    shapes = _baby_shapes(wanted, modulus, int(_ABOUT * best))
    large = [shape for shape in shapes if shape.size >= best / _ABOUT]
    return sorted(large or shapes, key=lambda s: (not s.tiles(wanted.size), s.price(wanted.size, ratio), s.size))


def _class_of_size(babies: int, wanted: int) -> int:
    """A number for all sizes that are compared as one."""
    return babies if wanted <= MANY_SHIFTS else round(math.log(babies, 9 / 8))


def overlaps(wanted: Residues, babies: Residues, modulus: int) -> NDArray[np.int16]:
    """How many wanted shifts the babies hit when moved by 0, 1, ..., modulus - 1."""
    is_wanted = np.zeros(2 * modulus, dtype=np.int16)
    is_wanted[wanted] = is_wanted[wanted + modulus] = 1
    hits = np.zeros(modulus, dtype=np.int16)
    for baby in babies.tolist():
        hits += is_wanted[baby : baby + modulus]
    return hits


@dataclass(frozen=True)
class BabyShape:
    """A candidate set of babies: the progressions it is a sum of, its size, and what a translate of it hits at most."""

    shape: Shape
    size: int
    hits: int

    def babies(self, modulus: int) -> Residues:
        """The babies themselves, ascending."""
        sums = np.zeros(1, dtype=np.int64)
        for step, length in self.shape:
            sums = ((sums[:, None] + step * np.arange(length)) % modulus).reshape(-1)
        return np.sort(sums)

    def least_giants(self, wanted: int) -> int:
        return -(-wanted // self.hits)

    def tiles(self, wanted: int) -> bool:
        """Whether translates of it might make up so many shifts without a gap."""
        return self.hits == self.size and wanted % self.size == 0

    def price(self, wanted: int, ratio: float) -> float:
        """A bound on what babies and giants cost, in babies, when a giant costs ``ratio`` of them."""
        return self.size + ratio * self.least_giants(wanted)


def _baby_shapes(wanted: Residues, modulus: int, most: int) -> list[BabyShape]:
    """Candidate baby sets of at most so many, of which some translate lies mostly inside the wanted shifts."""
    steps = frequent_differences(wanted, modulus)
    found = [BabyShape((), 1, 1)]
    frontier = found
    sets = {found[0].babies(modulus).tobytes()}
    for _ in range(3):
        grown = [longer for base in frontier for longer in _lengthened(base, steps, wanted, modulus, most)]
        grown.sort(key=lambda c: (-c.hits, c.shape))
        frontier = []
        kept: Counter[int] = Counter()  # of every size
        for candidate in grown:
            size = _class_of_size(candidate.size, wanted.size)
            if kept[size] == _SHAPES_A_SIZE:
                continue
            babies = candidate.babies(modulus).tobytes()
            if babies not in sets:
                sets.add(babies)
                kept[size] += 1
                frontier.append(candidate)
        found = found + frontier
    return found


def _lengthened(base: BabyShape, steps: list[int], wanted: Residues, modulus: int, most: int) -> list[BabyShape]:
    """All useful sums of a baby set with a progression of one more step, of at most so many babies."""
    grown: list[BabyShape] = []
    longest = min(wanted.size, most) // base.size
    if longest < 2:
        return grown
    babies = base.babies(modulus)
    once = overlaps(wanted, babies, modulus)
    twice = np.concatenate([once, once])
    for step in steps:
        if any(step == s for s, _ in base.shape):
            continue
        hit = once.copy()  # by the babies so far, moved by 0, 1, ..., modulus - 1
        is_baby = np.zeros(modulus, dtype=bool)
        is_baby[babies] = True
        for length in range(2, longest + 1):
            further = step * (length - 1) % modulus
            hit += twice[further : further + modulus]
            hits = int(hit.max())
            moved = (babies + further) % modulus
            if 4 * hits < 3 * length * base.size or is_baby[moved].any():
                break
            is_baby[moved] = True
            grown.append(BabyShape(tuple(sorted((*base.shape, (step, length)))), length * base.size, hits))
    return grown


def frequent_differences(values: Residues, modulus: int) -> list[int]:
    """A few distances that most pairs of residues are apart, at most half the modulus, the most frequent first."""
    present = np.fft.rfft(np.bincount(values, minlength=modulus))
    counts = np.rint(np.fft.irfft(present * present.conj(), modulus))[: modulus // 2 + 1]
    counts[: (modulus + 1) // 2] *= 2  # of pairs that far apart, in both orders
    steps = np.flatnonzero(counts[1:]) + 1
    order = np.lexsort((steps, -counts[steps]))
    return [int(d) for d in steps[order[:FREQUENT_STEPS]]]

"""Smallest covers of small sets of shifts, by trying them all."""

from __future__ import annotations

from itertools import combinations


def fewest_rotations(shifts: frozenset[int], modulus: int) -> int:
    """Least babies + giants - 2 over all sets with shifts inside their sum; babies may be taken as the fewer."""
    best = len(shifts) - 1
    for babies in range(1, len(shifts)):
        if 2 * (babies - 1) >= best:
            break
        for rest in combinations(range(1, modulus), babies - 1):
            best = min(best, babies - 1 + _fewest_giants(shifts, (0, *rest), modulus, best - babies + 1) - 1)
    return best


def _fewest_giants(shifts: frozenset[int], babies: tuple[int, ...], modulus: int, most: int) -> int:
    """Least number of translates of the babies that hit every shift, or ``most`` + 1 when it takes more."""
    translates = {shifts & {(giant + baby) % modulus for baby in babies} for giant in range(modulus)}
    largest = max(len(t) for t in translates)
    for giants in range(-(-len(shifts) // largest), most + 1):
        if any(frozenset().union(*chosen) == shifts for chosen in combinations(translates, giants)):
            return giants
    return most + 1

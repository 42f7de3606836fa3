"""Baby steps and giant steps (BSGS): a set of shifts covered with few rotations.

A set of diagonals with shifts S is evaluated as sum over giants g of rot_g(sum over babies b of
plaintext * rot_b(x)), with S inside B + G modulo m. Babies are a tree of rotations of the input,
giants a tree of rotations of partial sums. A node next to the root costs a key of its own and can be
hoisted; a chain re-uses one key (for giants this is Horner's rule). Because an output layout may be
moved as a whole, S counts only up to translation: 0 is always a baby and a giant, and costs nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.planner.kernel.babies import (
    MANY_SHIFTS,
    BabyShape,
    Residues,
    Shape,
    cheapest_shapes,
    frequent_differences,
    overlaps,
    shapes_by_size,
)


@dataclass(frozen=True)
class RotationTree:
    """Rotations reached from 0: each node is its parent plus a step that has a key.

    Attributes:
        nodes: rotations modulo the modulus of the cover, the root 0 first, parents before children.
        parents: for every node the position of its parent, -1 for the root.
        steps: for every node the rotation from its parent, 0 for the root.
    """

    nodes: tuple[int, ...]
    parents: tuple[int, ...]
    steps: tuple[int, ...]

    __repr__ = brief_repr

    @property
    def rotations(self) -> int:
        return len(self.nodes) - 1

    @property
    def keys(self) -> frozenset[int]:
        return frozenset(self.steps[1:])

    def as_star(self) -> RotationTree:
        """The same rotations, each directly from the root: a key each, and the digits shared."""
        return RotationTree(self.nodes, (-1,) + (0,) * self.rotations, self.nodes)


@dataclass(frozen=True, eq=False)
class Cover:
    """A choice of babies and giants; shift = offset + baby + giant modulo the modulus.

    Attributes:
        modulus: shifts count modulo this.
        offset: translation of the output layout that makes 0 a baby and a giant.
        babies, giants: rotation trees.
        split: shift - offset -> (position of its baby, position of its giant).
    """

    modulus: int
    offset: int
    babies: RotationTree
    giants: RotationTree
    split: dict[int, tuple[int, int]]

    __repr__ = brief_repr

    @property
    def rotations(self) -> int:
        return self.babies.rotations + self.giants.rotations

    @property
    def keys(self) -> frozenset[int]:
        return self.babies.keys | self.giants.keys


Split = dict[int, tuple[int, int]]  # shift -> (baby, giant)

_GIANT_STEPS = 4
_SHAPES_COMPARED = 4
_IN_VAIN = 24
"""Of many shifts, after so many baby sets that are no better no further one is tried."""


def covers(shifts: Iterable[int], modulus: int, ratio: float = 1.0) -> list[Cover]:
    """Return covers of a set of shifts that trade babies for giants, fewest babies first.

    Babies are sums of at most three progressions whose steps are frequent differences of the set;
    giants are found greedily as translates of the babies.

    Args:
        ratio: of what a giant costs to what a baby does: of many shifts (MANY_SHIFTS) only covers are compared that
            may be cheap by it.
    """
    wanted = np.unique(np.fromiter(shifts, dtype=np.int64) % modulus)
    if not wanted.size:
        raise ValueError("a cover needs at least one shift")
    start = _after_largest_gap(tuple(wanted.tolist()), modulus)
    from_start = tuple(np.sort((wanted - start) % modulus).tolist())
    moved = _some_covers(from_start, modulus, ratio) if wanted.size > MANY_SHIFTS else _covers(from_start, modulus)
    return [replace(cover, offset=(cover.offset + start) % modulus) for cover in moved]


@lru_cache(maxsize=4096)
def _after_largest_gap(shifts: tuple[int, ...], modulus: int) -> int:
    """Where to count from, so that translates have equal covers and greedy choices go from one end to the other."""
    wanted = np.array(shifts)
    gaps = (wanted - np.roll(wanted, 1) - 1) % modulus
    starts: list[int] = wanted[gaps == gaps.max()].tolist()
    return min(starts, key=lambda start: np.sort((wanted - start) % modulus).tolist())


@lru_cache(maxsize=4096)
def _covers(shifts: tuple[int, ...], modulus: int) -> tuple[Cover, ...]:
    wanted = np.array(shifts)
    kept: list[Cover] = []
    for of_size in shapes_by_size(wanted, modulus):
        fewer_giants_than = kept[-1].giants.rotations + 1 if kept else len(shifts) + 1
        best = _best_splits(wanted, of_size, modulus, fewer_giants_than)
        if best:
            kept.append(min((_with_trees(*s, modulus) for s in best), key=lambda c: (c.rotations, len(c.keys))))
    return tuple(kept)


def _best_splits(
    wanted: Residues, shapes: list[BabyShape], modulus: int, fewer_giants_than: int
) -> list[tuple[Shape, Split]]:
    """A few splits with the fewest giants among baby sets of one size; none when they have no fewer than given."""
    best: list[tuple[Shape, Split]] = []
    fewest = fewer_giants_than
    for candidate in sorted(shapes, key=lambda c: c.least_giants(wanted.size)):
        least = candidate.least_giants(wanted.size)
        if least >= fewer_giants_than or least > fewest or (least == fewest and len(best) == _SHAPES_COMPARED):
            break
        split = _cover_greedily(wanted, candidate.babies(modulus), modulus, min(fewest, fewer_giants_than - 1))
        if split is None:
            continue
        giants = len({giant for _, giant in split.values()})
        if giants < fewest:
            best, fewest = [], giants
        best.append((candidate.shape, split))
    return best[:_SHAPES_COMPARED]


@lru_cache(maxsize=4096)
def _some_covers(shifts: tuple[int, ...], modulus: int, ratio: float) -> tuple[Cover, ...]:
    """Covers of many shifts, each by baby sets that beat those before it, as far as no other is better in both."""
    wanted = np.array(shifts)
    found: list[Cover] = []
    best, in_vain = math.inf, 0
    for candidate in cheapest_shapes(wanted, modulus, ratio):
        most = int(min(wanted.size, (best - candidate.size) / ratio))
        if candidate.least_giants(wanted.size) > most:
            continue
        split = _cover_greedily(wanted, candidate.babies(modulus), modulus, most)
        in_vain += 1
        if split is not None:
            in_vain = 0
            cover = _with_trees(candidate.shape, split, modulus)
            best = min(best, len(cover.babies.nodes) + ratio * len(cover.giants.nodes))
            found.append(cover)
        if in_vain == _IN_VAIN:
            break
    found.sort(key=lambda c: (c.babies.rotations, c.giants.rotations))
    fewest = itertools.accumulate((c.giants.rotations for c in found), min, initial=wanted.size)
    return tuple(cover for cover, fewer in zip(found, fewest, strict=False) if cover.giants.rotations < fewer)


def _with_trees(shape: Shape, split: Split, modulus: int) -> Cover:
    offset, giant_tree = _giant_tree(sorted({g for _, g in split.values()}), modulus)
    baby_tree = _grid_tree({b for b, _ in split.values()}, [step for step, _ in shape], modulus)
    baby_at = {b: i for i, b in enumerate(baby_tree.nodes)}
    giant_at = {g: i for i, g in enumerate(giant_tree.nodes)}
    placed = {(s - offset) % modulus: (baby_at[b], giant_at[(g - offset) % modulus]) for s, (b, g) in split.items()}
    return Cover(modulus, offset, baby_tree, giant_tree, placed)


def _cover_greedily(wanted: Residues, babies: Residues, modulus: int, most: int) -> Split | None:
    """Shift -> (baby, giant); None when that takes more giants than ``most``."""
    hits = overlaps(wanted, babies, modulus)
    is_left = np.zeros(modulus, dtype=bool)
    is_left[wanted] = True
    left = wanted.size
    reached: list[tuple[int, list[int]]] = []
    while left:
        giant = int(hits.argmax())
        if len(reached) - (-left // int(hits[giant])) > most:  # no later giant hits more
            return None
        hit = (babies + giant) % modulus
        hit = hit[is_left[hit]]
        is_left[hit] = False
        giants = (hit[:, None] - babies) % modulus
        hits -= np.bincount(giants.reshape(-1), minlength=modulus).astype(np.int16)
        reached.append((giant, hit.tolist()))
        left -= hit.size
    split = {shift: ((shift - giant) % modulus, giant) for giant, hit in reached for shift in hit}
    first = min(b for b, _ in split.values())  # the input itself is a baby that costs nothing
    return {s: (b - first, (g + first) % modulus) for s, (b, g) in split.items()}


def _giant_tree(giants: list[int], modulus: int) -> tuple[int, RotationTree]:
    """Choose the origin and two steps that leave the fewest giants without a predecessor, each of which costs a key."""
    all_giants = np.array(giants)
    used = np.zeros(modulus, dtype=bool)
    used[all_giants] = True
    steps = frequent_differences(all_giants, modulus)[:_GIANT_STEPS]
    steps += [modulus - step for step in steps]
    follows = [used[(all_giants - step) % modulus] for step in steps]

    def is_root(pair: tuple[int, ...]) -> NDArray[np.bool_]:
        found = np.ones(all_giants.size, dtype=bool)
        for number in pair:
            found &= ~follows[number]
        return found

    numbers = range(len(steps))
    pairs = [(), *itertools.combinations(numbers, 1), *itertools.combinations(numbers, 2)]
    best = min(pairs, key=lambda pair: int(is_root(pair).sum()) + len(pair))
    roots = is_root(best)
    origin = giants[int(roots.argmax())] if roots.any() else giants[0]
    return origin, _grid_tree({(g - origin) % modulus for g in giants}, [steps[number] for number in best], modulus)


def _grid_tree(used: set[int], steps: list[int], modulus: int) -> RotationTree:
    """Reach every used rotation by one of the steps from another where possible, else directly from 0."""
    nodes, parents, chosen = [0], [-1], [0]
    todo = used - {0}
    # What follows from a reached node is reached before a root is opened: no node becomes a root later.
    roots = iter(sorted(v for v in todo if not any((v - step) % modulus in todo for step in steps)))
    reached = 0  # nodes before this position have been followed along every step
    while todo:
        if reached == len(nodes):  # nothing more can be reached: open a root, or where all have a predecessor the least
            start = next((root for root in roots if root in todo), None)
            start = min(todo) if start is None else start
            _append(start, 0, start, nodes, parents, chosen, todo)
        for step in steps:
            value = (nodes[reached] + step) % modulus
            if value in todo:
                _append(value, reached, step, nodes, parents, chosen, todo)
        reached += 1
    return RotationTree(tuple(nodes), tuple(parents), tuple(chosen))


def _append(
    value: int, parent: int, step: int, nodes: list[int], parents: list[int], chosen: list[int], todo: set[int]
) -> None:
    nodes.append(value)
    parents.append(parent)
    chosen.append(step)
    todo.remove(value)

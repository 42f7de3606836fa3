"""The plan of one affine layer: diagonals, baby and giant steps (BSGS), reductions, and where to rescale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.costs.tables import HOISTED, CostTable
from heinfer.layout.layout import Layout
from heinfer.network.join import Index
from heinfer.planner.kernel.babies import MANY_SHIFTS
from heinfer.planner.kernel.bsgs import Cover, RotationTree, covers
from heinfer.planner.kernel.diagonals import Diagonal, DiagonalProblem, DiagonalSet


class Rescale(StrEnum):
    """Where in a layer the one rescale happens."""

    BEFORE_GIANTS = "before giants"  # many rescales, cheaper giant rotations
    AFTER_GIANTS = "after giants"
    AFTER_REDUCTIONS = "after reductions"  # dearer reductions, whose noise is then scaled down


@dataclass(frozen=True, eq=False)
class LinearPlan:
    """How one affine layer is evaluated.

    Attributes:
        chosen: diagonals for the target layout of their problem.
        cover: baby and giant steps that realise their shifts.
        rescale: where the layer's rescale happens.
        label: what the target layout is, for reports.
    """

    chosen: DiagonalSet
    cover: Cover
    rescale: Rescale
    label: str

    __repr__ = brief_repr

    @cached_property
    def diagonals(self) -> DiagonalSet:
        """The diagonals that are evaluated, for a target layout moved by the cover's offset; made when asked for."""
        return self.chosen.moved(self.cover.offset) if self.cover.offset else self.chosen

    @property
    def problem(self) -> DiagonalProblem:
        return self.diagonals.problem

    @cached_property
    def target(self) -> Layout:
        """Where the outputs are afterwards."""
        return self.diagonals.result_layout()

    @property
    def reductions(self) -> tuple[int, ...]:
        return self.chosen.problem.reductions

    def position(self, diagonal: Diagonal) -> tuple[int, int]:
        """Positions of a diagonal's baby and giant in their trees."""
        return self.cover.split[diagonal.shift]

    def plaintexts(self) -> Iterator[tuple[Diagonal, Index]]:
        """Each diagonal with the input that row p reads, -1 for none; see DiagonalSet.plaintexts."""
        slots = self.problem.source.slots
        babies, giants = (rotations(tree, slots) for tree in (self.cover.babies, self.cover.giants))
        total = {shift: (babies[b] + giants[g]) % slots for shift, (b, g) in self.cover.split.items()}
        return self.diagonals.plaintexts(total)

    @property
    def counts(self) -> LinearCounts:
        return _counts(self.chosen, self.cover)

    @property
    def keys(self) -> frozenset[int]:
        """Rotation steps that need a key."""
        slots = self.chosen.problem.source.slots
        return frozenset(step % slots for step in (*self.cover.keys, *self.reductions))

    def key_levels(self, level: int) -> Iterator[tuple[int, int]]:
        """Every step that needs a key, with a level at which it is used when the input is at ``level``."""
        slots = self.problem.source.slots
        giants_at, reductions_at = self._levels(level)
        parts = ((self.cover.babies.keys, level), (self.cover.giants.keys, giants_at), (self.reductions, reductions_at))
        return ((step % slots, at) for steps, at in parts for step in steps)

    def _levels(self, level: int) -> tuple[int, int]:
        """Levels of giants and reductions when the input is at ``level``."""
        giants_at = level - 1 if self.rescale is Rescale.BEFORE_GIANTS else level
        reductions_at = level if self.rescale is Rescale.AFTER_REDUCTIONS else level - 1
        return giants_at, reductions_at

    def price(self, cost: CostTable, level: int) -> float:
        """What its operations cost when the input is at ``level``."""
        n = self.counts
        giants_at, reductions_at = self._levels(level)
        rescales = n.groups if self.rescale is Rescale.BEFORE_GIANTS else n.targets
        return (
            (n.babies - n.hoisted) * cost("rotation", level)
            + n.hoisted * cost(HOISTED, level)
            + n.hma * cost("hma", level)
            + n.giants * (cost("rotation", giants_at) + cost("add", giants_at))
            + n.reductions * (cost("rotation", reductions_at) + cost("add", reductions_at))
            + rescales * cost("rescale", level)
        )


@dataclass(frozen=True)
class LinearCounts:
    """Operations of one affine layer; babies, giants and reductions are rotations, hoisted babies share digits."""

    babies: int
    hoisted: int
    giants: int
    reductions: int
    hma: int
    groups: int
    targets: int

    @property
    def rotations(self) -> int:
        return self.babies + self.giants + self.reductions


@lru_cache(maxsize=64)
def _counts(diagonals: DiagonalSet, cover: Cover) -> LinearCounts:
    """Of one set by one cover, wherever the rescale is."""
    shift, where = np.unique((diagonals.shift - cover.offset) % cover.modulus, return_inverse=True)
    baby, giant = np.array([cover.split[s] for s in shift.tolist()])[where].T
    problem = diagonals.problem
    rotated, _ = _reached(cover.babies, problem.source.ciphertexts, diagonals.source, baby)
    moved, groups = _reached(cover.giants, problem.target.ciphertexts, diagonals.target, giant)
    parents = np.zeros_like(rotated)
    for node, parent in enumerate(cover.babies.parents[1:], start=1):
        parents[:, parent] |= rotated[:, node]
    return LinearCounts(
        babies=int(rotated[:, 1:].sum()),
        hoisted=int(rotated[:, 1:].sum() - parents.sum()),
        giants=int(moved[:, 1:].sum()),
        reductions=len(problem.reductions) * problem.target.ciphertexts,
        hma=len(diagonals),
        groups=int(groups.sum()),
        targets=problem.target.ciphertexts,
    )


def _reached(
    tree: RotationTree, ciphertexts: int, ciphertext: Index, node: Index
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(ciphertexts, nodes) which nodes of a tree are passed on the way to those given, and which these are."""
    used = np.zeros((ciphertexts, len(tree.nodes)), dtype=bool)
    used[ciphertext, node] = True
    passed = used.copy()
    for number in range(len(tree.nodes) - 1, 0, -1):
        passed[:, tree.parents[number]] |= passed[:, number]
    return passed, used


def rotations(tree: RotationTree, slots: int) -> tuple[int, ...]:
    """Slots by which each node of a tree is really rotated: the steps to it, added up."""
    totals = [0]
    for parent, step in zip(tree.parents[1:], tree.steps[1:], strict=True):
        totals.append((totals[parent] + step) % slots)
    return tuple(totals)


_TOLERANCES = (1.0, 0.7)
_SUGGESTIONS = 6


def diagonal_sets(problem: DiagonalProblem) -> list[DiagonalSet]:
    """Small sets of diagonals for one problem, chosen one by one, fewest first; PlanError when there is none."""
    found = {chosen.shifts: chosen for chosen in (problem.choose(tolerance=t) for t in _TOLERANCES)}
    return sorted(found.values(), key=len)


def regular_sets(problem: DiagonalProblem, sets: list[DiagonalSet], ratio: float = 1.0) -> list[DiagonalSet]:
    """Further sets: diagonals chosen again as translates of the babies that the covers of other sets have."""
    known = {chosen.shifts for chosen in sets}
    suggested = sorted(
        {c for shifts in known for c in covers(shifts, problem.modulus, ratio)},
        key=lambda c: (c.rotations, c.babies.nodes),
    )
    count = _SUGGESTIONS if len(suggested[0].split) <= MANY_SHIFTS else _SUGGESTIONS // 3
    babies = dict.fromkeys(cover.babies.nodes for cover in suggested[:count])
    found = {chosen.shifts: chosen for chosen in (problem.choose(nodes) for nodes in babies)}
    return sorted((s for shifts, s in found.items() if shifts not in known), key=len)


def linear_plans(
    diagonals: DiagonalSet, label: str, *, last: bool, hoists: bool = False, ratio: float = 1.0
) -> Iterator[LinearPlan]:
    """Yield ways to evaluate a set of diagonals: every cover with every place for the rescale.

    Args:
        last: whether these are the scores. Level 0 leaves their scale the fewest bits, so the rescale waits
            until everything is added up: its noise then enters once, and that of the reductions is scaled down.
        hoists: whether babies that share digits are cheaper: then each may have a key of its own.
        ratio: of what giants cost to what babies do (:func:`heinfer.planner.kernel.bsgs.covers`).
    """
    for cover in covers(diagonals.shifts, diagonals.problem.modulus, ratio):
        late = Rescale.AFTER_REDUCTIONS if diagonals.problem.reductions else Rescale.AFTER_GIANTS
        ways = [cover, replace(cover, babies=cover.babies.as_star())] if hoists else [cover]
        for way in ways:
            for rescale in [late] if last else dict.fromkeys([Rescale.BEFORE_GIANTS, Rescale.AFTER_GIANTS, late]):
                yield LinearPlan(diagonals, way, rescale, label)

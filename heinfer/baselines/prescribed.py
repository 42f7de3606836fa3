"""Linear plans that are prescribed: nothing in them is searched but the place of the rescale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from heinfer.baselines.recipes import Recipe, Transform
from heinfer.baselines.slot_maps import subset_sums
from heinfer.brief import brief_repr
from heinfer.costs.tables import CostTable
from heinfer.layout.layout import Layout
from heinfer.network.join import Index
from heinfer.planner.kernel.accumulators import Accumulators
from heinfer.planner.kernel.bsgs import Cover, RotationTree, covers
from heinfer.planner.kernel.diagonals import Diagonal, DiagonalProblem, DiagonalSet
from heinfer.planner.kernel.linear import LinearPlan, Rescale


@dataclass(frozen=True, eq=False, kw_only=True)
class PrescribedProblem(DiagonalProblem):
    """A problem that says itself where partial sums may live, and counts shifts modulo all slots.

    The rows of thousands of ciphertexts take too long to find slot by slot.

    Attributes:
        row: (ciphertexts, slots) the output whose partial sums each row holds, -1 for none.
    """

    row: Index

    __repr__ = brief_repr

    @cached_property
    def modulus(self) -> int:
        return self.source.slots

    @cached_property
    def accumulators(self) -> Accumulators:
        return Accumulators(self.row, np.arange(self.target.size))


class PrescribedSet(DiagonalSet):
    """Diagonals of which no two add the same term, for a target that is stated in full."""

    __repr__ = brief_repr

    def plaintexts(self, rotations: dict[int, int] | None = None) -> Iterator[tuple[Diagonal, Index]]:
        """Yield each diagonal with the input that each row reads by its plaintext, -1 for none: shape (slots,)."""
        for diagonal in self.diagonals:
            shift = rotations[diagonal.shift] if rotations else diagonal.shift
            rows, reads, cells = self.problem.terms(Diagonal(diagonal.source, diagonal.target, shift))
            _, first = np.unique(cells, return_index=True)  # of several copies in reach, the first is read
            vector = np.full(self.problem.target.slots, -1, dtype=np.int64)
            vector[rows[first]] = reads[first]
            yield diagonal, vector

    def result_layout(self) -> Layout:
        return self.problem.target


def prescribe(recipe: Recipe, operations: CostTable, level: int) -> LinearPlan:
    """The plan of a step at a level: products in place, giant steps, reductions, the rescale where it is cheapest.

    At level 1, which is the last layer, it comes last, as in plans that are searched.
    """
    if isinstance(recipe, Transform):
        return _transformed(recipe, operations, level)
    places = recipe.target
    target = places.layout()
    rows = np.full(target.index.shape, -1, dtype=np.int64)
    cone = (places.slot[:, None] + subset_sums(recipe.sums)) % places.slots
    rows[places.ciphertext[:, None], cone] = np.arange(target.size)[:, None]
    problem = PrescribedProblem(recipe.map, recipe.source.layout(), target, recipe.reductions, row=rows)
    chosen = PrescribedSet.of(problem, recipe.diagonals)
    cover = _turned(recipe.turns, places.slots) if recipe.in_place else _giants_in_a_row(chosen.shifts, places.slots)
    late = Rescale.AFTER_REDUCTIONS if recipe.reductions else Rescale.AFTER_GIANTS
    plans = (LinearPlan(chosen, cover, rescale, places.label) for rescale in ([late] if level == 1 else Rescale))
    return min(plans, key=lambda plan: plan.price(operations, level))


def _transformed(recipe: Transform, operations: CostTable, level: int) -> LinearPlan:
    """The cheapest of the covers that leave the target where it is."""
    problem = DiagonalProblem(recipe.map, recipe.source.layout(), recipe.target.layout())
    modulus = problem.modulus
    found = {replace(d, shift=d.shift % modulus) for d in recipe.diagonals}
    chosen = DiagonalSet.of(problem, found)
    ways = [cover for cover in covers(chosen.shifts, modulus) if cover.offset == 0]
    ways.append(_giants_in_a_row(chosen.shifts, modulus))
    rescales = [Rescale.AFTER_GIANTS] if level == 1 else [Rescale.BEFORE_GIANTS, Rescale.AFTER_GIANTS]
    plans = (LinearPlan(chosen, cover, rescale, recipe.target.label) for cover in ways for rescale in rescales)
    return min(plans, key=lambda plan: plan.price(operations, level))


def _turned(turns: tuple[int, ...], slots: int) -> Cover:
    """Every turn a baby step: the input is rotated once for all products."""
    babies = RotationTree(turns, (-1,) + (0,) * (len(turns) - 1), turns)
    return Cover(slots, 0, babies, RotationTree((0,), (-1,), (0,)), {turn: (i, 0) for i, turn in enumerate(turns)})


def _giants_in_a_row(shifts: tuple[int, ...], slots: int) -> Cover:
    """Every shift a giant step, each reached from the one before it: shifts that are equally far apart take one key."""
    moves = sorted({0, *(-shift % slots for shift in shifts)})
    nodes = tuple(-move % slots for move in moves)
    steps = (0, *((nodes[i] - nodes[i - 1]) % slots for i in range(1, len(nodes))))
    giants = RotationTree(nodes, tuple(range(-1, len(nodes) - 1)), steps)
    at = {node: (0, position) for position, node in enumerate(nodes)}
    return Cover(slots, 0, RotationTree((0,), (-1,), (0,)), giants, {shift: at[shift] for shift in shifts})

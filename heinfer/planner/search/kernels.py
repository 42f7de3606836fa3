"""Ways to evaluate an affine map between two layouts, solved once and priced as often as needed."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from heinfer.costs.tables import HOISTED, CostTable
from heinfer.layout.layout import Layout
from heinfer.network.linear_map import LinearMap
from heinfer.planner.kernel.diagonals import DiagonalProblem, DiagonalSet
from heinfer.planner.kernel.linear import LinearPlan, diagonal_sets, linear_plans, regular_sets
from heinfer.planner.search.candidates import Candidate


class Kernel:
    """One map from one layout to one candidate: its diagonals and their covers, found when they are first asked for."""

    def __init__(self, linear: LinearMap, source: Layout, target: Candidate) -> None:
        self.target = target
        self.problem = DiagonalProblem(linear, source, target.layout, target.reductions)
        self._more_sets: dict[float, list[DiagonalSet]] = {}
        self._plans: dict[tuple[DiagonalSet, bool, bool, float], list[LinearPlan]] = {}

    @cached_property
    def fewest_diagonals(self) -> int:
        """A bound that needs no search: a diagonal adds at most one term a row. PlanError when they do not fit."""
        accumulators = self.problem.accumulators
        reads = self.problem.map.reads[accumulators.element]
        fewest = 0
        for rows in accumulators.row:
            used = rows[rows >= 0]
            if used.size:
                fewest += -(-int(reads[np.unique(used)].sum()) // used.size)
        return max(1, fewest)

    @cached_property
    def at_least(self) -> int:
        """A closer bound, from which diagonal can add what."""
        return max(self.fewest_diagonals, self.problem.at_least)

    @cached_property
    def sets(self) -> list[DiagonalSet]:
        """Small sets of diagonals, fewest first."""
        return diagonal_sets(self.problem)

    def more_sets(self, ratio: float) -> list[DiagonalSet]:
        """Sets with more of a pattern; they take longer to find."""
        if ratio not in self._more_sets:
            self._more_sets[ratio] = regular_sets(self.problem, self.sets, ratio)
        return self._more_sets[ratio]

    def plans(self, diagonals: DiagonalSet, *, last: bool, hoists: bool, ratio: float) -> list[LinearPlan]:
        """Every way to evaluate one of the sets."""
        key = diagonals, last, hoists, ratio
        if key not in self._plans:
            self._plans[key] = list(linear_plans(diagonals, self.target.label, last=last, hoists=hoists, ratio=ratio))
        return self._plans[key]

    def ratio(self, operations: CostTable, level: int) -> float:
        """About what a giant step costs, in baby steps, each of all its ciphertexts; a power of the root of 2."""
        before = operations("rescale", level) + operations("rotation", level - 1)
        giants = self.problem.target.ciphertexts * min(before, operations("rotation", level))
        babies = self.problem.source.ciphertexts * operations(HOISTED, level)
        return 2 ** (round(2 * math.log2(giants / babies)) / 2)

    def least(self, operations: CostTable, level: int, diagonals: int) -> float:
        """A lower bound on the price of any plan with so many diagonals."""
        problem = self.problem
        sources, targets = problem.source.ciphertexts, problem.target.ciphertexts
        return least_price(operations, level, diagonals, sources, targets, len(problem.reductions))


def least_price(
    operations: CostTable, level: int, diagonals: int, sources: int = 1, targets: int = 1, reductions: int = 0
) -> float:
    """A lower bound on the price of a map of so many diagonals: n shifts need 2 sqrt(n) - 2 rotations.

    With s source and t target ciphertexts, b babies of price h and g giants of price r cost
    s b h + t g r >= 2 sqrt(s t b g h r).
    """
    shifts = -(-diagonals // (sources * targets))
    rotation, baby = operations("rotation", level - 1), operations(HOISTED, level - 1)
    steps = 2 * math.sqrt(sources * targets * shifts * rotation * baby) - sources * baby - targets * rotation
    return max(0.0, steps) + reductions * targets * rotation + diagonals * operations("hma", level)


class Kernels:
    """Every kernel of one search, each made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[LinearMap, int, int], Kernel] = {}
        self._layouts: dict[object, int] = {}

    def __call__(self, linear: LinearMap, source: Layout, target: Candidate) -> Kernel:
        key = linear, self._number(source), self._number((target.layout, target.reductions))
        if key not in self._made:
            self._made[key] = Kernel(linear, source, target)
        return self._made[key]

    def _number(self, layout: object) -> int:
        return self._layouts.setdefault(layout, len(self._layouts))

"""Combinations of ranks worth a plan, by a model that adds up what each rank was found to change.

A factorized layer takes a level more, so that all before it gets dearer, and past some depth the ring doubles. The
model therefore adds times of the planned operations at the levels and in the ring that a combination needs; what it
leaves out is that neighbours may choose other layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from operator import itemgetter

from heinfer.convert.timing import Timing
from heinfer.costs.tables import CostTable
from heinfer.planner.parameters import smallest_parameters

Combination = tuple[int | None, ...]
"""A rank for every layer, None for one that stays as it is."""

_MOST_KEPT = 32
"""Combinations with equally many factorized layers that are built upon."""
MOST_COMBINATIONS = 127
"""That a frontier has: bisecting it takes 7 steps."""


@dataclass(frozen=True)
class Change:
    """What one rank of one layer changes: the difference between two plans that are alike but for that layer.

    Attributes:
        before: with the layer as it is.
        after: with the layer at the rank.
    """

    before: Combination
    after: Combination


class TimeModel:
    """Predicts combinations from the plan of the network as it is and from changes, one for each layer and rank."""

    def __init__(
        self,
        paths: Sequence[str],
        plans: Mapping[Combination, Timing],
        changes: Mapping[tuple[int, int], Change],
        costs: Callable[[int], CostTable],
    ) -> None:
        self._paths = paths
        self._plans = plans
        self._changes = changes
        self._base: Combination = (None,) * len(paths)
        self._costs = cache(costs)
        self._price = cache(self._priced)

    def __call__(self, combination: Combination) -> float:
        """Milliseconds of a run; exact where there is a plan, infinite where there is no ring."""
        if combination in self._plans:
            planned = self._plans[combination]
            return planned.milliseconds(self._costs(planned.ring_degree))
        base = self._plans[self._base]
        levels = tuple(map(self._levels, range(len(combination)), combination))
        ring = smallest_parameters(base.levels + sum(levels))
        if ring is None:
            return inf
        degree = max(ring.ring_degree, base.ring_degree)
        total = self._price(self._base, levels, degree)
        for number, rank in enumerate(combination):
            if rank is not None:
                change = self._changes[number, rank]
                total += self._price(change.after, levels, degree) - self._price(change.before, levels, degree)
        return total

    def _levels(self, number: int, rank: int | None) -> int:
        """How many levels more a layer takes at a rank than as it is."""
        if rank is None:
            return 0
        change = self._changes[number, rank]
        return self._plans[change.after].levels - self._plans[change.before].levels

    def _priced(self, plan: Combination, levels: tuple[int, ...], degree: int) -> float:
        """Time of a plan's operations in a ring, when layers take other levels: all before those is so much higher."""
        timing = self._plans[plan]
        higher = [0] * len(timing.layers)
        for number, (path, wanted) in enumerate(zip(self._paths, levels, strict=True)):
            more = wanted - self._levels(number, plan[number])
            for before in range(timing.position(path) if more else 0):
                higher[before] += more
        return timing.milliseconds(self._costs(degree), higher)


def frontier(
    ranks: Sequence[Sequence[int]], loss: Callable[[Combination], float], time: Callable[[Combination], float]
) -> list[Combination]:
    """Return the combinations to which none is known that loses no more and is no slower, the least loss first.

    Built up layer by layer, from the best with equally many factorized layers: the whole product is never formed.

    Args:
        ranks: that each layer may have; it may also stay as it is.
        loss: what a combination is expected to cost in accuracy.
        time: what it is expected to take.
    """
    kept: list[Combination] = [(None,) * len(ranks)]
    for number, choices in enumerate(ranks):
        kept += [(*c[:number], rank, *c[number + 1 :]) for c in kept for rank in choices]
        by_depth: dict[int, list[Combination]] = {}
        for combination in kept:
            by_depth.setdefault(sum(rank is not None for rank in combination), []).append(combination)
        kept = [c for group in by_depth.values() for c in _thinned(_undominated(group, loss, time), _MOST_KEPT)]
    return _thinned(_undominated(kept, loss, time), MOST_COMBINATIONS)


def _undominated(
    combinations: Sequence[Combination],
    loss: Callable[[Combination], float],
    time: Callable[[Combination], float],
) -> list[Combination]:
    best: list[Combination] = []
    fastest = inf
    for _, spent, combination in sorted(((loss(c), time(c), c) for c in combinations), key=itemgetter(0, 1)):
        if spent < fastest:
            best.append(combination)
            fastest = spent
    return best


def _thinned(combinations: list[Combination], most: int) -> list[Combination]:
    """At most so many, evenly spread, both ends among them."""
    if len(combinations) <= most:
        return combinations
    return [combinations[i * (len(combinations) - 1) // (most - 1)] for i in range(most)]

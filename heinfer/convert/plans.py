"""Plans of one network under combinations of ranks, each made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

from torch import nn

from heinfer.convert.combinations import Combination
from heinfer.convert.svd import factorized
from heinfer.convert.timing import Timing, planned
from heinfer.costs.tables import CostTable, cost_table
from heinfer.errors import CompileError
from heinfer.planner.requirements import Requirements

Progress = Callable[[int, int, Mapping[str, int]], None]
"""Called after every plan with the number of plans made, the most there can be, and the ranks just planned."""


class Plans:
    """The times of a network with some of its convolutions factorized.

    Attributes:
        paths: of the convolutions; a combination has a rank for each.
        timings: of every combination that was asked for and has a plan.
    """

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, ...],
        paths: Sequence[str],
        requirements: Requirements,
        most: int,
        progress: Progress | None,
    ) -> None:
        self.paths = paths
        self.timings: dict[Combination, Timing] = {}
        self._unplannable: set[Combination] = set()
        self._module = module
        self._shape = shape
        self._requirements = requirements
        self._most = most
        self._progress = progress

    @property
    def as_it_is(self) -> Combination:
        """No layer factorized."""
        return (None,) * len(self.paths)

    @property
    def made(self) -> int:
        """How many plans were asked of the planner."""
        return len(self.timings) + len(self._unplannable)

    def ranks(self, combination: Combination) -> dict[str, int]:
        """The ranks of a combination by path."""
        return {path: rank for path, rank in zip(self.paths, combination, strict=True) if rank is not None}

    def timing(self, combination: Combination) -> Timing | None:
        """What runs for a combination, None when it has no plan; CompileError when nothing is factorized in it."""
        if combination not in self.timings and combination not in self._unplannable:
            ranks = self.ranks(combination)
            try:
                self.timings[combination] = planned(factorized(self._module, ranks), self._shape, self._requirements)
            except CompileError:
                if not ranks:
                    raise
                self._unplannable.add(combination)
            if self._progress:
                self._progress(self.made, self._most, ranks)
        return self.timings.get(combination)

    def milliseconds(self, combination: Combination, path: str = "") -> float:
        """Predicted time of an image, or of one layer for it; infinite when there is no plan."""
        timing = self.timing(combination)
        if timing is None:
            return inf
        cost = self.costs(timing.ring_degree)
        spent = sum(layer.milliseconds(cost) for layer in timing.layers if layer.belongs_to(path))
        return spent / self._requirements.batch

    def dominant(self, combination: Combination) -> tuple[str, float]:
        """The layer of a planned combination that takes longest, and its share of the time."""
        timing = self.timings[combination]
        cost = self.costs(timing.ring_degree)
        layer = max(timing.layers, key=lambda layer: layer.milliseconds(cost))
        return layer.name, layer.milliseconds(cost) / timing.milliseconds(cost)

    def costs(self, ring_degree: int) -> CostTable:
        """The cost table that predicts the time."""
        return cost_table(ring_degree, self._requirements.backend, self._requirements.costs)

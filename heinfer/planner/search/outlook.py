"""What certainly follows of a layout: a bound on the price of the maps that will read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from heinfer.costs.tables import CostTable
from heinfer.layout.layout import Layout
from heinfer.network.linear_map import LinearMap
from heinfer.planner.search.kernels import least_price


@dataclass(frozen=True)
class Outlook:
    """The maps to come.

    Attributes:
        readers: those that read every tensor, or what it is squared or multiplied to.
        operations: price of every operation at every level.
        levels: of the tensors that are still read.
    """

    readers: Mapping[int, tuple[LinearMap, ...]]
    operations: CostTable
    levels: Mapping[int, int]

    def of(self, tensor: int, layout: Layout) -> float:
        """A bound for one tensor: a diagonal multiplies each slot that holds an element once."""
        held = np.count_nonzero(layout.index >= 0) / layout.ciphertexts
        level = max(1, self.levels[tensor] - 1)
        return sum(
            least_price(self.operations, level, -(-linear.size // int(held)), sources=layout.ciphertexts)
            for linear in self.readers.get(tensor, ())
        )

    def __call__(self, layouts: Mapping[int, Layout]) -> float:
        """The same for all that are still read."""
        return sum(self.of(tensor, layouts[tensor]) for tensor in self.levels if tensor in layouts)

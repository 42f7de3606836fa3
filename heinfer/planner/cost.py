"""The cost model: measured milliseconds of every ciphertext operation, per backend, ring degree and level."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from heinfer.errors import PlanError


@dataclass(frozen=True)
class CostTable:
    """Milliseconds of one operation at each level.

    Attributes:
        backend: which backend was measured.
        ring_degree: at which N.
        milliseconds: operation name -> times at level 0, 1, 2, ...
    """

    backend: str
    ring_degree: int
    milliseconds: Mapping[str, tuple[float, ...]]

    def __call__(self, operation: str, level: int) -> float:
        """Milliseconds of an operation at a level; levels above the table grow with the square of their primes."""
        times = self.milliseconds[operation]
        if level < len(times):
            return times[level]
        return times[-1] * ((level + 1) / len(times)) ** 2


@lru_cache
def cost_table(ring_degree: int, backend: str = "tenseal") -> CostTable:
    """Return the shipped table; a ring degree without one scales from the nearest measured one by N log N."""
    tables = json.loads(resources.files("heinfer.planner").joinpath("costs.json").read_text())
    if backend not in tables:
        raise PlanError(f"no cost table for backend {backend!r}; there are {sorted(tables)}")
    measured = tables[backend]
    nearest = min((int(n) for n in measured), key=lambda n: abs(n.bit_length() - ring_degree.bit_length()))
    factor = ring_degree * ring_degree.bit_length() / (nearest * nearest.bit_length())
    times = {name: tuple(t * factor for t in row) for name, row in measured[str(nearest)].items()}
    return CostTable(backend, ring_degree, times)

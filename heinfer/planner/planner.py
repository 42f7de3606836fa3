"""Who makes a plan: the search, or a method that prescribes everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heinfer.costs.cost import Cost
from heinfer.network.ir import Network
from heinfer.planner.plan import Plan
from heinfer.planner.requirements import Requirements
from heinfer.planner.search.search import plan_network


@dataclass(frozen=True)
class Planner:
    """Turns a folded network into a plan.

    Attributes:
        name: that a bundle remembers.
        plan: raises PlanError when there is no plan, or it exceeds a limit.
        count: what the plan would cost, without keeping it; of a method that leaves nothing to choose, whose plans may
            be too large to keep, and whose rotations stay as it has them. None of a search.
    """

    name: str
    plan: Callable[[Network, Requirements], Plan]
    count: Callable[[Network, Requirements], Cost] | None = None

    @property
    def is_prescribed(self) -> bool:
        """Whether it leaves nothing to choose."""
        return self.count is not None


SEARCH = Planner("heinfer", lambda network, requirements: plan_network(network, requirements=requirements))

"""The plan: a folded network with layouts, kernels and levels chosen."""

from __future__ import annotations

from dataclasses import dataclass

from heinfer.ckks.parameters import Parameters
from heinfer.layout.layout import Layout
from heinfer.planner.linear import LinearPlan


@dataclass(frozen=True, eq=False)
class LinearStep:
    """An affine layer and its plan; takes one level."""

    name: str
    plan: LinearPlan


@dataclass(frozen=True, eq=False)
class SquareStep:
    """Squares every slot and relinearizes; takes one level."""

    name: str


Step = LinearStep | SquareStep


@dataclass(frozen=True, eq=False)
class Plan:
    """A network as steps over layouts.

    Attributes:
        parameters: with at least as many levels as there are steps.
        input: layout in which the client sends the input.
        input_label: what that layout is, for reports.
        steps: the layers in order; each takes one level.
        milliseconds: time that the cost model predicts.
    """

    parameters: Parameters
    input: Layout
    input_label: str
    steps: tuple[Step, ...]
    milliseconds: float

    @property
    def input_level(self) -> int:
        """Level at which the client encrypts."""
        return len(self.steps)

    @property
    def output(self) -> Layout:
        """Layout of the scores; has no FREE slot."""
        return next(step.plan.target for step in reversed(self.steps) if isinstance(step, LinearStep))

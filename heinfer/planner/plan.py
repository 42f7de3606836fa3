"""The plan: a folded network with layouts, kernels and levels chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heinfer.ckks.parameters import Parameters
from heinfer.layout.layout import Layout
from heinfer.planner.cost import CostTable
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
        single_input: layout of one image in the slots / batch that it has.
        input_label: what that layout is, for reports.
        steps: the layers in order, for one image in slots / batch; each takes one level.
        batch: how many images the slots hold, interleaved: slot p of image b is slot p batch + b.
    """

    parameters: Parameters
    single_input: Layout
    input_label: str
    steps: tuple[Step, ...]
    batch: int = 1

    @property
    def input_level(self) -> int:
        """Level at which the client encrypts."""
        return len(self.steps)

    @cached_property
    def input(self) -> Layout:
        """Layout in which the client sends the input, of shape (batch, *shape) when there is more than one."""
        return self.single_input.interleaved(self.batch)

    @cached_property
    def output(self) -> Layout:
        """Layout of the scores; has no FREE slot."""
        single = next(step.plan.target for step in reversed(self.steps) if isinstance(step, LinearStep))
        return single.interleaved(self.batch)

    def price(self, operations: CostTable) -> float:
        """What all its operations cost: milliseconds of one evaluation, when the table has milliseconds."""
        total, level, ciphertexts = 0.0, self.input_level, self.single_input.ciphertexts
        for step in self.steps:
            if isinstance(step, LinearStep):
                total += step.plan.price(operations, level)
                ciphertexts = step.plan.target.ciphertexts
            else:
                total += ciphertexts * square_price(operations, level)
            level -= 1
        return total

    def in_batches(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tensors (n, *shape) as ``input`` packs them: (batches, batch, *shape); the first fill the last batch."""
        if self.batch == 1:
            return x
        filled = np.resize(x, (-(-len(x) // self.batch) * self.batch, *x.shape[1:]))
        return filled.reshape(-1, self.batch, *x.shape[1:])


def square_price(operations: CostTable, level: int) -> float:
    """What squaring one ciphertext costs, relinearized and rescaled."""
    return operations("square", level) + operations("relinearize", level) + operations("rescale", level)

"""The plan: a folded network with layouts, kernels and levels chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.ckks.parameters import Parameters
from heinfer.costs.tables import CostTable
from heinfer.layout.layout import Layout
from heinfer.network.ir import INPUT
from heinfer.planner.linear import LinearPlan


@dataclass(frozen=True, eq=False)
class LinearStep:
    """An affine layer and its plan; takes one level.

    Attributes:
        name: of the layer.
        plan: for the elements of all tensors that it reads, those of the first tensor first.
        reads: positions of the steps that make these tensors, or INPUT; by default the step before it.
    """

    name: str
    plan: LinearPlan
    reads: tuple[int, ...] | None = None

    __repr__ = brief_repr


@dataclass(frozen=True, eq=False)
class SquareStep:
    """Squares every slot of a tensor and relinearizes; takes one level. ``reads`` as for LinearStep."""

    name: str
    reads: tuple[int, ...] | None = None

    __repr__ = brief_repr


Step = LinearStep | SquareStep


@dataclass(frozen=True, eq=False)
class Plan:
    """A network as steps over layouts.

    Attributes:
        parameters: with at least as many levels as there are steps one after the other.
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

    __repr__ = brief_repr

    def _about(self) -> str:
        return (
            f"N={self.parameters.ring_degree}, input {self.input_label}: {', '.join(step.name for step in self.steps)}"
        )

    @cached_property
    def reads(self) -> tuple[tuple[int, ...], ...]:
        """Positions of the steps that make what each step reads, or INPUT."""
        return tuple((position - 1,) if step.reads is None else step.reads for position, step in enumerate(self.steps))

    @cached_property
    def levels(self) -> dict[int, int]:
        """The level of what each step makes, and of the INPUT: as low as what follows from it allows.

        A step works one level above its result; what it reads is brought down to that.
        """
        found = {len(self.steps) - 1: 0}
        for position in range(len(self.steps) - 1, -1, -1):
            for tensor in self.reads[position]:
                found[tensor] = max(found.get(tensor, 0), found[position] + 1)
        return found

    @property
    def input_level(self) -> int:
        """Level at which the client encrypts."""
        return self.levels[INPUT]

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
        total, ciphertexts = 0.0, {INPUT: self.single_input.ciphertexts}
        for position, (step, reads) in enumerate(zip(self.steps, self.reads, strict=True)):
            level = self.levels[position] + 1
            total += sum(ciphertexts[t] * drop_price(operations, self.levels[t], level) for t in reads)
            if isinstance(step, LinearStep):
                total += step.plan.price(operations, level)
                ciphertexts[position] = step.plan.target.ciphertexts
            else:
                ciphertexts[position] = ciphertexts[reads[0]]
                total += ciphertexts[position] * square_price(operations, level)
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


def drop_price(operations: CostTable, level: int, wanted: int) -> float:
    """What bringing one ciphertext down to a wanted level costs."""
    return sum(operations("drop_level", at) for at in range(wanted + 1, level + 1))

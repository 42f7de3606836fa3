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
from heinfer.network.operators import Chebyshev
from heinfer.planner.kernel.linear import LinearPlan
from heinfer.planner.series import Line, depth_of, lines_of, series_price


@dataclass(frozen=True, eq=False)
class LinearStep:
    """An affine layer and its plan; takes one level.

    Attributes:
        name: of the layer.
        plan: for the elements of all tensors that it reads, those of the first tensor first.
        level: that what it reads is brought down to; its result is one level below.
        reads: positions of the steps that make these tensors, or INPUT.
    """

    name: str
    plan: LinearPlan
    level: int
    reads: tuple[int, ...]

    __repr__ = brief_repr
    depth = 1


@dataclass(frozen=True, eq=False)
class SquareStep:
    """Squares every slot of a tensor and relinearizes; takes one level. ``level`` and ``reads`` as for LinearStep."""

    name: str
    level: int
    reads: tuple[int, ...]

    __repr__ = brief_repr
    depth = 1


@dataclass(frozen=True, eq=False)
class ProductStep:
    """Multiplies two tensors slot by slot and relinearizes; takes one level. ``level`` as for LinearStep.

    Attributes:
        reads: positions of the two steps that make the factors.
        shift: slots by which every ciphertext of the second is rotated to the left before.
    """

    name: str
    level: int
    reads: tuple[int, ...]
    shift: int = 0

    __repr__ = brief_repr
    depth = 1


@dataclass(frozen=True, eq=False)
class SeriesStep:
    """Evaluates a Chebyshev series in every slot, by heinfer.planner.series. ``level`` and ``reads`` as for LinearStep.

    Attributes:
        series: of u in [-2, 2], for every channel.
        layout: where the elements are, before and afterwards.
    """

    name: str
    level: int
    reads: tuple[int, ...]
    series: Chebyshev
    layout: Layout

    __repr__ = brief_repr

    @property
    def depth(self) -> int:
        """Levels that it takes."""
        return depth_of(self.series.degree)

    @property
    def lines(self) -> tuple[Line, ...]:
        return lines_of(self.series.coefficients)


Step = LinearStep | SquareStep | ProductStep | SeriesStep


@dataclass(frozen=True, eq=False)
class Plan:
    """A network as steps over layouts; heinfer.planner.validate says what holds of one.

    Attributes:
        parameters: ring and primes.
        input_level: level at which the client encrypts.
        single_input: layout of one image in the slots / batch that it has.
        input_label: what that layout is, for reports.
        steps: the layers in order, for one image in slots / batch; each takes one level.
        batch: how many images the slots hold, interleaved: slot p of image b is slot p batch + b.
    """

    parameters: Parameters
    input_level: int
    single_input: Layout
    input_label: str
    steps: tuple[Step, ...]
    batch: int = 1

    __repr__ = brief_repr

    def _about(self) -> str:
        return (
            f"N={self.parameters.ring_degree}, input {self.input_label}: {', '.join(step.name for step in self.steps)}"
        )

    def level_of(self, tensor: int) -> int:
        """The level of what a step makes, or of the INPUT."""
        return self.input_level if tensor == INPUT else self.steps[tensor].level - self.steps[tensor].depth

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
        for position, step in enumerate(self.steps):
            total += sum(ciphertexts[t] * drop_price(operations, self.level_of(t), step.level) for t in step.reads)
            if isinstance(step, LinearStep):
                total += step.plan.price(operations, step.level)
                ciphertexts[position] = step.plan.target.ciphertexts
            else:
                ciphertexts[position] = ciphertexts[step.reads[0]]
                total += ciphertexts[position] * pointwise_price(operations, step)
        return total

    def in_batches(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tensors (n, *shape) as ``input`` packs them: (batches, batch, *shape); the first fill the last batch."""
        if self.batch == 1:
            return x
        filled = np.resize(x, (-(-len(x) // self.batch) * self.batch, *x.shape[1:]))
        return filled.reshape(-1, self.batch, *x.shape[1:])


def pointwise_price(operations: CostTable, step: SquareStep | ProductStep | SeriesStep) -> float:
    """What a step that is no map costs for every ciphertext."""
    if isinstance(step, SeriesStep):
        return series_price(operations, step.series.degree, step.level)
    shift = step.shift if isinstance(step, ProductStep) else 0
    return square_price(operations, step.level) + (operations("rotation", step.level) if shift else 0.0)


def square_price(operations: CostTable, level: int) -> float:
    """What squaring one ciphertext costs, relinearized and rescaled."""
    return operations("square", level) + operations("relinearize", level) + operations("rescale", level)


def drop_price(operations: CostTable, level: int, wanted: int) -> float:
    """What bringing one ciphertext down to a wanted level costs."""
    return sum(operations("drop_level", at) for at in range(wanted + 1, level + 1))

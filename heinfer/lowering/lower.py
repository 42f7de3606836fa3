"""Lowering: from a plan to the circuit that runs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heinfer.circuit.builder import Builder
from heinfer.circuit.ir import Circuit, Layer, SlotVector
from heinfer.circuit.passes.interleaving import interleave
from heinfer.layout.layout import FREE, ZERO
from heinfer.lowering.series import lower_series
from heinfer.network.ir import INPUT
from heinfer.network.join import Index
from heinfer.planner.kernel.diagonals import Diagonal
from heinfer.planner.kernel.linear import LinearPlan, Rescale, rotations
from heinfer.planner.plan import LinearStep, Plan, ProductStep, SeriesStep, SquareStep
from heinfer.tell import Tell, say_nothing


def lower(plan: Plan, tell: Tell = say_nothing) -> Circuit:
    """Return the circuit of a plan; scales of plaintexts are left to the scale pass.

    Args:
        tell: is told which layer's turn it is.
    """
    builder = Builder(plan.parameters.slots // plan.batch)
    inputs = tuple(builder.input(i) for i in range(plan.single_input.ciphertexts))
    tensors = {INPUT: _Tensor(inputs, "the input", plan.input_label)}
    for position, step in enumerate(plan.steps):
        tell(f"lower {step.name}", position, len(plan.steps))
        sources = [tensors[tensor] for tensor in step.reads]
        label = step.plan.label if isinstance(step, LinearStep) else sources[0].label
        kernel = _kernel_name(step.plan) if isinstance(step, LinearStep) else _POINTWISE.get(type(step), "")
        if not isinstance(step, SeriesStep):
            builder.layer(Layer(step.name, kernel, _labels(sources), label))
        values = [
            x
            for tensor, source in zip(step.reads, sources, strict=True)
            for x in _brought_down(builder, source.values, plan.level_of(tensor) - step.level)
        ]
        if isinstance(step, LinearStep):
            values = _LinearLowering(builder, step.plan).lower(values)
        elif isinstance(step, ProductStep):
            first, second = values[: len(values) // 2], values[len(values) // 2 :]
            moved = [builder.rotate(y, step.shift) for y in second]
            values = [builder.rescale(builder.multiply(x, y)) for x, y in zip(first, moved, strict=True)]
        elif isinstance(step, SeriesStep):
            values = lower_series(builder, step, values, label)
        else:
            values = [builder.rescale(builder.square(x)) for x in values]
        tensors[position] = _Tensor(tuple(values), step.name, label)
    return interleave(builder.finish(tensors[len(plan.steps) - 1].values), plan.batch)


_POINTWISE = {SquareStep: "square", ProductStep: "product"}


@dataclass(frozen=True)
class _Tensor:
    """The ciphertexts of a tensor, what made it, and how it is laid out."""

    values: tuple[int, ...]
    maker: str
    label: str


def _labels(sources: list[_Tensor]) -> str:
    if len(sources) == 1:
        return sources[0].label
    return " and ".join(f"{source.label} (of {source.maker})" for source in sources)


def _brought_down(builder: Builder, values: tuple[int, ...], levels: int) -> tuple[int, ...]:
    for _ in range(levels):
        values = tuple(builder.drop_level(x) for x in values)
    return values


def _kernel_name(plan: LinearPlan) -> str:
    cover = plan.cover
    name = f"{len(plan.diagonals)} diagonals as {len(cover.babies.nodes)}x{len(cover.giants.nodes)}"
    return f"{name}, {len(plan.reductions)} reductions" if plan.reductions else name


class _LinearLowering:
    """One affine layer: babies, products, giants, reductions, bias."""

    def __init__(self, builder: Builder, plan: LinearPlan) -> None:
        self.builder = builder
        self.plan = plan
        self.slots = builder.slots

    def lower(self, values: list[int]) -> list[int]:
        groups = self._products(values)
        if self.plan.rescale is Rescale.BEFORE_GIANTS:
            groups = {key: self.builder.rescale(x) for key, x in groups.items()}
        of_target: list[dict[int, int]] = [{} for _ in range(self.plan.problem.target.ciphertexts)]
        for (target, giant), x in groups.items():
            of_target[target][giant] = x
        return [self._finish(self._sum_giants(sums), target) for target, sums in enumerate(of_target)]

    def _products(self, values: list[int]) -> dict[tuple[int, int], int]:
        """Sum plaintext x baby for every (target ciphertext, giant)."""
        babies: dict[tuple[int, int], int] = {}
        sums: dict[tuple[int, int], int] = {}
        giants = rotations(self.plan.cover.giants, self.slots)
        for diagonal, reads in self.plan.plaintexts():
            baby, giant = self.plan.position(diagonal)
            x = self._baby(babies, values, diagonal.source, baby)
            vector = np.roll(self._vector(diagonal, reads), giants[giant])
            product = self.builder.multiply_plain(x, vector)
            key = diagonal.target, giant
            sums[key] = self.builder.add(sums[key], product) if key in sums else product
        return sums

    def _baby(self, babies: dict[tuple[int, int], int], values: list[int], source: int, node: int) -> int:
        """The input rotated by a node of the baby tree, through its parents."""
        if node == 0:
            return values[source]
        if (source, node) not in babies:
            tree = self.plan.cover.babies
            parent = self._baby(babies, values, source, tree.parents[node])
            babies[source, node] = self.builder.rotate(parent, tree.steps[node])
        return babies[source, node]

    def _vector(self, diagonal: Diagonal, reads: Index) -> SlotVector:
        """Values of a diagonal; one number when every slot may have the same (ConvPack's scalar kernel)."""
        held = reads >= 0
        values = self.plan.diagonals.values(diagonal, reads)
        same = bool(held.any() and (values[held] == values[held][0]).all())
        if same and not self.plan.reductions and self.plan.position(diagonal) == (0, 0):
            reads_zero = self.plan.problem.source.index[diagonal.source] == ZERO
            unread = self.plan.target.index[diagonal.target] == FREE
            if (held | reads_zero | unread).all():
                return values[held][:1]
        return values

    def _sum_giants(self, groups: dict[int, int]) -> int:
        """Horner's rule over the giant tree: the last node first, each added to its parent after its step."""
        tree = self.plan.cover.giants
        sums = dict(groups)
        for node in range(len(tree.nodes) - 1, 0, -1):
            if node in sums:
                moved = self.builder.rotate(sums.pop(node), tree.steps[node])
                parent = tree.parents[node]
                sums[parent] = self.builder.add(sums[parent], moved) if parent in sums else moved
        return sums[0]

    def _finish(self, x: int, target: int) -> int:
        """Rescale where the plan says, reduce, add the bias."""
        if self.plan.rescale is Rescale.AFTER_GIANTS:
            x = self.builder.rescale(x)
        for reduction in self.plan.reductions:
            x = self.builder.add(x, self.builder.rotate(x, reduction))
        if self.plan.rescale is Rescale.AFTER_REDUCTIONS:
            x = self.builder.rescale(x)
        index = self.plan.target.index[target]
        bias = np.where(index >= 0, self.plan.problem.map.bias[np.maximum(index, 0)], 0.0)
        return self.builder.add_plain(x, bias) if bias.any() else x

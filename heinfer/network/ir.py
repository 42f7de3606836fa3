"""The tensor-level network: named operators in order, each reading the one before it or the earlier ones it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from heinfer.brief import brief_repr
from heinfer.errors import ShapeError
from heinfer.network.joints import Joint
from heinfer.network.operators import Operator, Shape
from heinfer.network.pairs import Vector

INPUT = -1
"""What a node reads that reads the network's input."""


@dataclass(frozen=True, eq=False)
class Node:
    """One operator, named as in the model it came from.

    Attributes:
        inputs: positions of the nodes it reads, or INPUT; by default the one before it.
    """

    name: str
    operator: Operator | Joint
    inputs: tuple[int, ...] | None = None

    __repr__ = brief_repr


@dataclass(frozen=True, eq=False)
class Network:
    """Operators from an input of ``input_shape``; the last one gives the output."""

    input_shape: Shape
    nodes: tuple[Node, ...]

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"of {self.input_shape}: {', '.join(type(node.operator).__name__ for node in self.nodes)}"

    @cached_property
    def reads(self) -> tuple[tuple[int, ...], ...]:
        """Positions of what every node reads; ShapeError names a node that reads what is not there before it."""
        found = []
        for position, node in enumerate(self.nodes):
            inputs = (position - 1,) if node.inputs is None else node.inputs
            single = isinstance(node.operator, Operator)
            if not inputs or (single and len(inputs) > 1) or not all(INPUT <= i < position for i in inputs):
                raise ShapeError(f"{node.name}: node {position} cannot read {inputs}")
            found.append(inputs)
        return tuple(found)

    @property
    def is_chain(self) -> bool:
        """Whether every node reads the one before it and nothing else."""
        return all(reads == (position - 1,) for position, reads in enumerate(self.reads))

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Output shape of every node; ShapeError names the node whose input does not fit."""
        shapes: dict[int, Shape] = {INPUT: self.input_shape}
        for position, (node, reads) in enumerate(zip(self.nodes, self.reads, strict=True)):
            try:
                shapes[position] = _shape(node.operator, [shapes[i] for i in reads])
            except ShapeError as error:
                raise ShapeError(f"{node.name}: {error}") from None
        return tuple(shapes[position] for position in range(len(self.nodes)))

    @property
    def output_shape(self) -> Shape:
        return self.shapes[-1] if self.nodes else self.input_shape

    def __call__(self, x: Vector) -> Vector:
        """Evaluate in float64 on tensors of shape (batch, *input_shape)."""
        result = x
        for result in self.values(x):  # noqa: B007  (the last one)
            pass
        return result

    def values(self, x: Vector) -> Iterator[Vector]:
        """The input, then what every node makes of it; none is kept longer than others need it."""
        if x.shape[1:] != self.input_shape:
            raise ShapeError(f"the network takes (batch, *{self.input_shape}), got {x.shape}")
        values: dict[int, Vector] = {INPUT: np.asarray(x, dtype=np.float64)}
        yield values[INPUT]
        for position, (node, reads) in enumerate(zip(self.nodes, self.reads, strict=True)):
            values[position] = _value(node.operator, [values[i] for i in reads])
            yield values[position]
            for done in [i for i in values if self.last_use.get(i, position) <= position and i != position]:
                del values[done]

    @cached_property
    def last_use(self) -> dict[int, int]:
        """Position of the last node that reads each tensor, by the position of the node that makes it."""
        return {i: position for position, reads in enumerate(self.reads) for i in reads}


def _shape(operator: Operator | Joint, shapes: Sequence[Shape]) -> Shape:
    return operator.output_shape(shapes) if isinstance(operator, Joint) else operator.output_shape(shapes[0])


def _value(operator: Operator | Joint, xs: Sequence[Vector]) -> Vector:
    return operator(xs) if isinstance(operator, Joint) else operator(xs[0])

"""The tensor-level network: named operators in order, each reading one earlier tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from heinfer.errors import ShapeError
from heinfer.network.linear_map import Vector
from heinfer.network.operators import Operator, Shape


@dataclass(frozen=True, eq=False)
class Node:
    """One operator, named as in the model it came from."""

    name: str
    operator: Operator


@dataclass(frozen=True, eq=False)
class Network:
    """A chain of operators from an input of ``input_shape``."""

    input_shape: Shape
    nodes: tuple[Node, ...]

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Output shape of every node; ShapeError names the node whose input does not fit."""
        shapes: list[Shape] = []
        for node in self.nodes:
            try:
                shapes.append(node.operator.output_shape(shapes[-1] if shapes else self.input_shape))
            except ShapeError as error:
                raise ShapeError(f"{node.name}: {error}") from None
        return tuple(shapes)

    @property
    def output_shape(self) -> Shape:
        return self.shapes[-1]

    def __call__(self, x: Vector) -> Vector:
        """Evaluate in float64 on tensors of shape (batch, *input_shape)."""
        if x.shape[1:] != self.input_shape:
            raise ShapeError(f"the network takes (batch, *{self.input_shape}), got {x.shape}")
        x = np.asarray(x, dtype=np.float64)
        for node in self.nodes:
            x = node.operator(x)
        return x

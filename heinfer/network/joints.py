"""Joints: operators of several tensors, where the branches of a network meet.

Like every linear operator a linear joint knows its matrices, one for each tensor it reads; its result is the sum of
their images. Shapes and evaluation follow. The only other is the product of two tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np

from heinfer.brief import brief_repr
from heinfer.errors import ShapeError
from heinfer.network.linear_map import LinearMap, planes_of
from heinfer.network.operators import Shape
from heinfer.network.pairs import Pairs, Vector
from heinfer.network.stencil import Stencil


class Joint(ABC):
    """A function of several tensors. Arrays carry a batch axis in front, shapes do not."""

    @abstractmethod
    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Shape of the result; ShapeError when the tensors do not fit together."""

    @abstractmethod
    def __call__(self, xs: Sequence[Vector]) -> Vector:
        """Evaluate on tensors of shape (batch, *shape)."""


class LinearJoint(Joint):
    """A joint that is a sum of affine maps."""

    @abstractmethod
    def linear_maps(self, shapes: Sequence[Shape]) -> tuple[LinearMap, ...]:
        """The map of each tensor; their images are added up. ShapeError when the tensors do not fit together."""

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        return self.linear_maps(shapes)[0].out_shape

    def __call__(self, xs: Sequence[Vector]) -> Vector:
        maps = self.linear_maps([x.shape[1:] for x in xs])
        images = [linear(x) for linear, x in zip(maps, xs, strict=True)]
        return np.asarray(sum(images[1:], images[0]))


@dataclass(frozen=True, eq=False)
class Add(LinearJoint):
    """x + y + ..., of tensors of one shape: a residual connection."""

    def linear_maps(self, shapes: Sequence[Shape]) -> tuple[LinearMap, ...]:
        for shape in shapes[1:]:
            if shape != shapes[0]:
                raise ShapeError(f"tensors that are added have one shape, not {_named(shapes)}")
        size = prod(shapes[0])
        identity = LinearMap.diagonal(shapes[0], np.ones(size), np.zeros(size))
        return (identity,) * len(shapes)


@dataclass(frozen=True, eq=False)
class Concat(LinearJoint):
    """The channels of several tensors as those of one, in order."""

    def linear_maps(self, shapes: Sequence[Shape]) -> tuple[LinearMap, ...]:
        if any(shape[1:] != shapes[0][1:] for shape in shapes):
            raise ShapeError(f"tensors whose channels are joined agree in all else, unlike {_named(shapes)}")
        out_shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        maps, first = [], 0
        for shape in shapes:
            same = Stencil.diagonal(planes_of(shape), np.ones(prod(shape)))
            channels = Pairs.one_to_one(shape[0], out_shape[0], first)
            maps.append(LinearMap.of(shape, out_shape, replace(same, channels=channels), np.zeros(prod(out_shape))))
            first += shape[0]
        return tuple(maps)


@dataclass(frozen=True, eq=False)
class Product(Joint):
    """x y, element by element, of two tensors of one shape; a tensor times itself is its square."""

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise ShapeError(f"a product has two factors of one shape, not {_named(shapes)}")
        return shapes[0]

    def __call__(self, xs: Sequence[Vector]) -> Vector:
        return xs[0] * xs[1]


@dataclass(frozen=True, eq=False)
class AffineSum(LinearJoint):
    """A sum of affine maps of several tensors: what folding leaves of a joint and the maps around it."""

    maps: tuple[LinearMap, ...]

    __repr__ = brief_repr

    def linear_maps(self, shapes: Sequence[Shape]) -> tuple[LinearMap, ...]:
        expected = [linear.in_shape for linear in self.maps]
        if list(shapes) != expected:
            raise ShapeError(f"expected {_named(expected)}, got {_named(shapes)}")
        return self.maps

    @cached_property
    def map(self) -> LinearMap:
        """The same as one map of all elements, those of the first tensor first."""
        return LinearMap.side_by_side(self.maps)


def _named(shapes: Sequence[Shape]) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)

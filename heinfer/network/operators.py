"""Operators of the tensor-level network.

Every linear operator knows one thing, its matrix as stencils (:meth:`Linear.linear_map`); shapes,
evaluation and lowering follow from it. A new linear operator is one class of a few lines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from heinfer.brief import brief_repr
from heinfer.errors import ShapeError
from heinfer.network.join import Index
from heinfer.network.linear_map import LinearMap, planes_of
from heinfer.network.pairs import Axis, Pairs, Vector
from heinfer.network.stencil import Stencil

Shape = tuple[int, ...]


class Operator(ABC):
    """A function of one tensor. Arrays carry a batch axis in front, shapes do not."""

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the result; ShapeError when the operator does not take ``shape``."""

    @abstractmethod
    def __call__(self, x: Vector) -> Vector:
        """Evaluate on tensors of shape (batch, *shape)."""


class Linear(Operator):
    """An operator that is an affine map."""

    @abstractmethod
    def linear_map(self, shape: Shape) -> LinearMap:
        """The map for inputs of ``shape``; ShapeError when the operator does not take it."""

    def output_shape(self, shape: Shape) -> Shape:
        return self.linear_map(shape).out_shape

    def __call__(self, x: Vector) -> Vector:
        return self.linear_map(x.shape[1:])(x)


@dataclass(frozen=True, eq=False)
class Affine(Linear):
    """Any affine map, already as a matrix: what folding leaves."""

    map: LinearMap

    __repr__ = brief_repr

    def linear_map(self, shape: Shape) -> LinearMap:
        _require(shape == self.map.in_shape, f"expected {self.map.in_shape}, got {shape}")
        return self.map


@dataclass(frozen=True, eq=False)
class Convolution(Linear):
    """2-D convolution (cross-correlation, as in torch). weight: (c_out, c_in / groups, height, width)."""

    weight: Vector
    bias: Vector
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    __repr__ = brief_repr

    def output_shape(self, shape: Shape) -> Shape:
        c_out, c_group, *kernel = self.weight.shape
        _require(len(shape) == 3, f"a convolution takes (channels, height, width), got {shape}")
        _require(
            shape[0] == c_group * self.groups, f"expected {c_group * self.groups} channels, got {shape[0]} in {shape}"
        )
        return c_out, *_windows_along(shape, kernel, self.stride, self.padding, self.dilation)

    def linear_map(self, shape: Shape) -> LinearMap:
        c_out, c_group = self.output_shape(shape)[0], self.weight.shape[1]
        outputs, inputs = (a.reshape(-1) for a in np.indices((c_out, c_group)))
        inputs = inputs + outputs // (c_out // self.groups) * c_group
        weight = self.weight.reshape(-1, *self.weight.shape[2:])
        return _windows(shape, outputs, inputs, weight, self.bias, self.stride, self.padding, self.dilation)


@dataclass(frozen=True, eq=False)
class SparseConvolution(Linear):
    """2-D convolution in which only some output channels read some input channels, by declared structure.

    Takes (c_in, height, width), or (c_in,) as planes of one element.

    Attributes:
        c_in: input channels.
        outputs, inputs: channels of every kernel, shape (n,), no pair twice.
        weight: (n, height, width).
        bias: (c_out,).
    """

    c_in: int
    outputs: Index
    inputs: Index
    weight: Vector
    bias: Vector
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    __repr__ = brief_repr

    def linear_map(self, shape: Shape) -> LinearMap:
        _require(len(shape) in (1, 3) and shape[0] == self.c_in, f"expected {self.c_in} channels, got {shape}")
        planes = shape if len(shape) == 3 else (*shape, 1, 1)
        found = _windows(planes, self.outputs, self.inputs, self.weight, self.bias, self.stride, self.padding, (1, 1))
        return found if len(shape) == 3 else replace(found, in_shape=shape, out_shape=found.out_shape[:1])


def _windows_along(
    shape: Shape, kernel: Sequence[int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> list[int]:
    """How many windows a kernel has along either axis of planes (channels, height, width)."""
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True)
    ]
    _require(min(size) > 0, f"kernel {tuple(kernel)} is larger than the padded input {shape}")
    return size


def _windows(
    shape: Shape,
    outputs: Index,
    inputs: Index,
    weight: Vector,
    bias: Vector,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> LinearMap:
    """The map of kernels (n, height, width) from the planes ``inputs`` to the planes ``outputs``."""
    kernel = weight.shape[1:]
    size = _windows_along(shape, kernel, stride, padding, dilation)
    y, x = (Axis.windows(*along) for along in zip(shape[1:], size, kernel, stride, padding, dilation, strict=True))
    order = np.lexsort((inputs, outputs))
    channels = Pairs(bias.size, shape[0], outputs[order], inputs[order])
    stencil = Stencil(channels, y, x, np.ascontiguousarray(weight[order].transpose(1, 2, 0)))
    return LinearMap.of(shape, (bias.size, *size), stencil, np.repeat(bias, size[0] * size[1]))


@dataclass(frozen=True, eq=False)
class Dense(Linear):
    """Fully connected layer on the flattened input. weight: (outputs, inputs)."""

    weight: Vector
    bias: Vector

    __repr__ = brief_repr

    def linear_map(self, shape: Shape) -> LinearMap:
        outputs, inputs = self.weight.shape
        _require(prod(shape) == inputs, f"expected {inputs} elements, got {prod(shape)} in {shape}")
        channels, height, width = planes_of(shape)
        weights = np.ascontiguousarray(self.weight.reshape(-1, height, width).transpose(1, 2, 0))
        y, x = Axis.whole(height), Axis.whole(width)
        return LinearMap.of(shape, (outputs,), Stencil(Pairs.all_to_all(outputs, channels), y, x, weights), self.bias)


@dataclass(frozen=True, eq=False)
class ChannelAffine(Linear):
    """scale_c x + shift_c, channel by channel: batch normalisation at inference."""

    scale: Vector
    shift: Vector

    __repr__ = brief_repr

    def linear_map(self, shape: Shape) -> LinearMap:
        return LinearMap.diagonal(shape, per_channel(self.scale, shape), per_channel(self.shift, shape))


@dataclass(frozen=True, eq=False)
class AveragePool(Linear):
    """Average over windows, without padding."""

    kernel: tuple[int, int]
    stride: tuple[int, int]

    __repr__ = brief_repr

    def linear_map(self, shape: Shape) -> LinearMap:
        weight = np.full((shape[0], 1, *self.kernel), 1 / prod(self.kernel))
        return Convolution(weight, np.zeros(shape[0]), self.stride, groups=shape[0]).linear_map(shape)


@dataclass(frozen=True, eq=False)
class Flatten(Linear):
    """The same elements as one axis, of ``size`` where that is given."""

    size: int | None = None

    __repr__ = brief_repr

    def linear_map(self, shape: Shape) -> LinearMap:
        _require(self.size in (None, prod(shape)), f"{shape} has {prod(shape)} elements, not {self.size}")
        same = LinearMap.diagonal(shape, np.ones(prod(shape)), np.zeros(prod(shape)))
        return replace(same, out_shape=(prod(shape),))


@dataclass(frozen=True, eq=False)
class Square(Operator):
    """x^2, element by element."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def __call__(self, x: Vector) -> Vector:
        return x * x


@dataclass(frozen=True, eq=False)
class Polynomial(Operator):
    """a_c x^2 + b_c x + c_c, channel by channel; every a_c is nonzero."""

    a: Vector
    b: Vector
    c: Vector

    __repr__ = brief_repr

    def output_shape(self, shape: Shape) -> Shape:
        _require(self.a.size in (1, shape[0]), f"coefficients for {self.a.size} channels, got {shape}")
        return shape

    def __call__(self, x: Vector) -> Vector:
        a, b, c = (per_channel(v, x.shape[1:]).reshape(x.shape[1:]) for v in (self.a, self.b, self.c))
        return (a * x + b) * x + c


MOST_DEGREE = 15
"""Of a Chebyshev series."""


@dataclass(frozen=True, eq=False)
class Chebyshev(Operator):
    """sum_k coefficients[c, k] T_k((x - center[c]) / radius[c]), channel by channel.

    A product more for about every second degree, and ceil(log2(degree + 1)) levels (heinfer.planner.series).
    Coefficients may be zero, the last too: only the degree counts. A quadratic whose leading coefficients are none is
    better a :class:`Polynomial`, which takes one level.

    Attributes:
        coefficients: (channels or 1, degree + 1), degree 1 to 15.
        center, radius: (channels or 1,) the interval [center - radius, center + radius] in which values ought to be.
    """

    coefficients: Vector
    center: Vector
    radius: Vector

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        fits = self.coefficients.ndim == 2 and 1 <= self.degree <= MOST_DEGREE
        _require(
            fits,
            f"a series of degree 1 to {MOST_DEGREE} has coefficients for each channel, not {self.coefficients.shape}",
        )
        _require(bool((self.radius > 0).all()), "the radius of a series must be positive")

    @property
    def degree(self) -> int:
        return int(self.coefficients.shape[1]) - 1

    def output_shape(self, shape: Shape) -> Shape:
        sizes = {len(self.coefficients), self.center.size, self.radius.size}
        _require(sizes <= {1, shape[0]}, f"a series for {max(sizes)} channels, got {shape}")
        return shape

    def __call__(self, x: Vector) -> Vector:
        shape = x.shape[1:]
        center, radius = (per_channel(v, shape).reshape(shape) for v in (self.center, self.radius))
        coefficients = np.stack([per_channel(c, shape).reshape(shape) for c in self.coefficients.T])
        return np.asarray(np.polynomial.chebyshev.chebval((x - center) / radius, coefficients, tensor=False))

    def slope(self, x: Vector) -> Vector:
        """The derivative at the elements of one tensor of a shape that it takes."""
        series = np.polynomial.chebyshev.chebder(self.coefficients, axis=1) / self.radius.reshape(-1, 1)
        derived = replace(self, coefficients=np.concatenate([series, np.zeros_like(series[:, :1])], axis=1))
        return np.asarray(derived(x[None])[0])


def per_channel(values: Vector, shape: Shape) -> Vector:
    """Repeat one value a channel (or one for all) over the elements of a tensor, flattened."""
    _require(values.size in (1, shape[0]), f"{values.size} channel values do not fit {shape}")
    return np.repeat(np.broadcast_to(values, (shape[0],)), prod(shape[1:]))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ShapeError(message)

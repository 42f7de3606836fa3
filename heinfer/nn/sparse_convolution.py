"""A convolution of declared pairs of channels, as an operator that torch.export keeps whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_LIBRARY: Any = torch.library.Library("heinfer", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(
    "sparse_convolution(Tensor x, Tensor weight, Tensor outputs, Tensor inputs, int channels, int[] stride, "
    "int[] padding) -> Tensor"
)


def _sparse_convolution(
    x: Tensor, weight: Tensor, outputs: Tensor, inputs: Tensor, channels: int, stride: list[int], padding: list[int]
) -> Tensor:
    whole = weight.new_zeros(channels, x.shape[1], *weight.shape[1:]).index_put((outputs, inputs), weight)
    planes = x.reshape(*x.shape, *(1,) * (4 - x.dim()))
    result = functional.conv2d(planes, whole, None, stride, padding)
    return result.reshape(result.shape[: x.dim()])


_LIBRARY.impl("sparse_convolution", _sparse_convolution, "CompositeImplicitAutograd")


def sparse_convolution(
    x: Tensor,
    weight: Tensor,
    outputs: Tensor,
    inputs: Tensor,
    channels: int,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """A convolution in which output channel ``outputs[n]`` reads input channel ``inputs[n]`` by ``weight[n]``.

    The pairs are structure that an encrypted program makes use of; all others read nothing.

    Args:
        x: (B, c_in, H, W), or (B, c_in) as planes of one element.
        weight: (n, height, width).
        outputs, inputs: (n,) channels, no pair twice.
        channels: of the result.
    """
    result: Tensor = torch.ops.heinfer.sparse_convolution(
        x, weight, outputs, inputs, channels, list(stride), list(padding)
    )
    return result

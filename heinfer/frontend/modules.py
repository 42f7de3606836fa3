"""The operator of each supported torch module. A new one is one function of a few lines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.ways_out import MODULES, OWN, way_out
from heinfer.network.operators import (
    AveragePool,
    ChannelAffine,
    Convolution,
    Dense,
    Flatten,
    Operator,
    Polynomial,
    SparseConvolution,
)
from heinfer.network.pairs import Vector
from heinfer.nn import PolyActivation
from heinfer.nn.circulant import BlockDft, InverseBlockDft, SpectralConv2d, real_dft


def module_operator(path: str, module: nn.Module) -> Operator | None:
    """Return the operator of a module, None when it does nothing at inference.

    Raises:
        UnsupportedOperatorError: names the module's path and type, or the option that has no encrypted form.
    """
    for kind, convert in _CONVERTERS.items():
        if isinstance(module, kind):
            try:
                return convert(module)
            except UnsupportedOperatorError as error:
                raise UnsupportedOperatorError(f"{path}: {error}") from None
    name = type(module).__name__
    otherwise = MODULES if type(module).__module__.startswith("torch.") else OWN
    raise UnsupportedOperatorError(f"{path}: {name} has no encrypted form; {way_out(name, otherwise)}")


def _convolution(module: nn.Conv2d) -> Operator:
    if module.padding_mode != "zeros":
        raise UnsupportedOperatorError("a convolution must be padded with zeros, by numbers")
    if isinstance(module.padding, str):
        raise UnsupportedOperatorError(f"padding={module.padding!r}: {_padding_in_numbers(module)}")
    return Convolution(
        _array(module.weight),
        _bias(module.bias, module.out_channels),
        _pair(module.stride),
        _pair(module.padding),
        _pair(module.dilation),
        module.groups,
    )


def _padding_in_numbers(module: nn.Conv2d) -> str:
    both = (
        [0, 0]
        if module.padding == "valid"
        else [d * (k - 1) for d, k in zip(_pair(module.dilation), _pair(module.kernel_size), strict=True)]
    )
    if any(size % 2 for size in both):
        return "an even kernel is padded more on one side, which no number says; take an odd one, and train again"
    return f"write padding=({both[0] // 2}, {both[1] // 2}), which is the same"


def _dense(module: nn.Linear) -> Operator:
    return Dense(_array(module.weight), _bias(module.bias, module.out_features))


def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d) -> Operator:
    if module.running_mean is None or module.running_var is None:
        raise UnsupportedOperatorError(
            "batch normalisation needs running statistics, which are constants at inference: "
            "take track_running_stats=True, and run training batches through it"
        )
    variance = _array(module.running_var) + module.eps
    if (variance <= 0).any():
        raise UnsupportedOperatorError(
            f"batch normalisation divides by the root of running_var + eps, {variance.min():g} in channel "
            f"{variance.argmin()}: take an eps above 0, 1e-5 by default, or leave out a channel that is always the same"
        )
    scale = 1 / np.sqrt(variance)
    if module.weight is not None:  # whatever affine says
        scale = scale * _array(module.weight)
    return ChannelAffine(scale, _bias(module.bias, scale.size) - _array(module.running_mean) * scale)


def _average_pool(module: nn.AvgPool2d) -> Operator:
    if any(_pair(module.padding)) or module.ceil_mode or module.divisor_override:
        raise UnsupportedOperatorError("average pooling must be without padding, ceil_mode and divisor_override")
    return AveragePool(_pair(module.kernel_size), _pair(module.stride))


def _flatten(module: nn.Flatten) -> Operator:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise UnsupportedOperatorError("only a flatten of everything but the batch axis is supported")
    return Flatten()


def _polynomial(module: PolyActivation) -> Operator:
    a, b, c = (_array(t) for t in module.coefficients())
    return Polynomial(a, b, c)


def _nothing(_: nn.Module) -> None:
    return None


def _dft(module: BlockDft) -> Operator:
    j, q, r = (a.reshape(-1) for a in np.indices((module.blocks, module.block, module.block)))
    there = j * module.block + r < module.channels
    j, q, r = j[there], q[there], r[there]
    outputs, inputs = q * module.blocks + j, j * module.block + r
    matrix = _array(real_dft(module.block))
    size = module.block * module.blocks
    return SparseConvolution(module.channels, outputs, inputs, matrix[q, r][:, None, None], np.zeros(size))


def _inverse_dft(module: InverseBlockDft) -> Operator:
    j, q, r = (a.reshape(-1) for a in np.indices((module.blocks, module.block, module.block)))
    there = j * module.block + r < module.channels
    j, q, r = j[there], q[there], r[there]
    outputs, inputs = j * module.block + r, q * module.blocks + j
    matrix, bias = _array(real_dft(module.block)), _bias(module.bias, module.channels)
    return SparseConvolution(module.block * module.blocks, outputs, inputs, matrix[q, r][:, None, None], bias)


def _spectral(module: SpectralConv2d) -> Operator:
    """Every frequency reads itself; the two real ones, which share a pair, only themselves."""
    blocks_out, blocks_in, block = module.weight.shape[:3]
    weight = copy.deepcopy(module).double().grouped_weight().detach().numpy()
    outputs, inputs = (a.reshape(-1) for a in np.indices((block * blocks_out, 2 * blocks_in)))
    q_out, q_in = outputs // blocks_out, outputs // blocks_out // 2 * 2 + inputs // blocks_in
    there = (q_out == q_in) | (q_out > 1)
    kernels = weight.reshape(-1, *weight.shape[2:])[there]
    inputs = q_in * blocks_in + inputs % blocks_in
    sizes, bias = block * blocks_in, np.zeros(block * blocks_out)
    return SparseConvolution(sizes, outputs[there], inputs[there], kernels, bias, module.stride, module.padding)


_CONVERTERS: dict[type[nn.Module] | tuple[type[nn.Module], ...], Callable[[Any], Operator | None]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _dense,
    (nn.BatchNorm1d, nn.BatchNorm2d): _batch_norm,
    nn.AvgPool2d: _average_pool,
    nn.Flatten: _flatten,
    PolyActivation: _polynomial,
    BlockDft: _dft,
    InverseBlockDft: _inverse_dft,
    SpectralConv2d: _spectral,
    (nn.Identity, nn.modules.dropout._DropoutNd): _nothing,
}

MAKES_NEW_TENSOR = (
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.AvgPool2d,
    PolyActivation,
    BlockDft,
    InverseBlockDft,
    SpectralConv2d,
)
"""Modules whose result shares no memory with what they read."""

LEAVES = (PolyActivation, BlockDft, InverseBlockDft, SpectralConv2d)
"""Modules outside torch.nn that have an operator of their own: the tracer does not look inside them."""


def _array(tensor: Tensor) -> Vector:
    """A copy: what happens to the module afterwards does not change the network."""
    return np.array(tensor.detach().double().numpy())


def _bias(bias: Tensor | None, size: int) -> Vector:
    return np.zeros(size) if bias is None else _array(bias)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])

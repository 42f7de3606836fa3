"""Factorize convolutions: a d x d convolution becomes an FFConv of lower rank."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from heinfer.errors import SettingError
from heinfer.nn import FFConv2d


def factorize(
    module: nn.Module,
    *,
    rank: int | Mapping[str, int] | None = None,
    energy: float | None = None,
    layers: Sequence[str] | None = None,
) -> nn.Module:
    """Return a copy of ``module`` in which convolutions are FFConv2d, by truncated SVD of their weights.

    The c_out x (c_in d^2) weight matrix W = U S V^T becomes V^T's first rows, scaled by sqrt(S), as the d x d
    factor and U's first columns, scaled by sqrt(S), as the 1 x 1 factor: at full rank exactly the same map, below
    it the nearest one of that rank in the Frobenius norm (Eckart-Young). Source: FFConv, arXiv 2102.03494.

    Args:
        module: any model; its convolutions are named by their paths, such as ``conv2`` or ``stage1.0.conv``.
        rank: rank of every factorized layer, or a rank for each path (which then also chooses the layers).
        energy: in (0, 1]; instead of ``rank``, the smallest rank that keeps this share of the squared singular values.
        layers: paths to factorize; by default every convolution with a kernel above 1 x 1 except the first.

    Raises:
        SettingError: not exactly one of rank and energy; a path that is no convolution, a rank outside
            1..min(c_out, c_in d^2), or a grouped, dilated or not zero-padded convolution.
    """
    if (rank is None) == (energy is None):
        raise SettingError("factorize needs exactly one of rank and energy")
    if energy is not None and not 0 < energy <= 1:
        raise SettingError(f"energy is a share of the squared singular values, in (0, 1]; got {energy}")
    if layers is None:
        layers = list(rank) if isinstance(rank, Mapping) else _default_layers(module)
    result = copy.deepcopy(module)
    for path in layers:
        conv = _convolution(result, path)
        wanted = rank.get(path) if isinstance(rank, Mapping) else rank
        if wanted is None and energy is None:
            raise SettingError(f"{path}: rank names no rank for it")
        replacement = _factorized(path, conv, wanted, energy)
        if not path:
            return replacement
        parent, _, name = path.rpartition(".")
        setattr(result.get_submodule(parent), name, replacement)
    return result


def _default_layers(module: nn.Module) -> list[str]:
    """Every convolution with a kernel except the first: one or few input channels leave nothing to gain."""
    paths = [path for path, m in module.named_modules() if isinstance(m, nn.Conv2d)]
    return [path for path in paths[1:] if max(_convolution(module, path).kernel_size) > 1]


def _convolution(module: nn.Module, path: str) -> nn.Conv2d:
    try:
        found = module.get_submodule(path)
    except AttributeError:
        raise SettingError(f"{path}: the model has no such module") from None
    if not isinstance(found, nn.Conv2d):
        raise SettingError(f"{path}: only Conv2d can be factorized, this is {type(found).__name__}")
    return found


def _factorized(path: str, conv: nn.Conv2d, rank: int | None, energy: float | None) -> FFConv2d:
    if conv.groups != 1 or conv.dilation != (1, 1):
        raise SettingError(
            f"{path}: groups {conv.groups}, dilation {conv.dilation}: only a convolution without groups and dilation "
            "can be factorized; leave it out of layers"
        )
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise SettingError(
            f"{path}: padding {conv.padding!r} in mode {conv.padding_mode!r}: give zero padding as numbers"
        )
    c_out, c_in, *kernel = conv.weight.shape
    # In float64: the factors of a float32 weight then reproduce it to float32 rounding.
    u, s, v = torch.linalg.svd(conv.weight.detach().double().reshape(c_out, -1), full_matrices=False)
    if rank is None:
        assert energy is not None
        rank = _smallest_rank(s, energy)
    if not 1 <= rank <= len(s):
        raise SettingError(f"{path}: rank {rank} is outside 1..{len(s)}")
    result = FFConv2d(
        c_in, c_out, (kernel[0], kernel[1]), rank, _pair(conv.stride), _pair(conv.padding), conv.bias is not None
    ).to(conv.weight)
    root = s[:rank].sqrt()
    with torch.no_grad():
        result.spatial.weight.copy_((root[:, None] * v[:rank]).reshape(rank, c_in, *kernel))
        result.pointwise.weight.copy_((u[:, :rank] * root).reshape(c_out, rank, 1, 1))
        if conv.bias is not None and result.pointwise.bias is not None:
            result.pointwise.bias.copy_(conv.bias)
    return result.train(conv.training)


def _smallest_rank(s: Tensor, energy: float) -> int:
    kept = s.square().cumsum(0) / s.square().sum()
    return int((kept < energy * (1 - 1e-12)).sum()) + 1


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]

"""Convolutions as two factors: truncated SVD of their weights, and putting the factors in their place."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from heinfer.errors import SettingError
from heinfer.nn import FFConv2d


def default_layers(module: nn.Module) -> list[str]:
    """Every convolution with a kernel except the first: one or few input channels leave nothing to gain.

    The halves of an FFConv2d are no layers of their own.
    """
    halves = {half for part in module.modules() if isinstance(part, FFConv2d) for half in part.children()}
    found = [(path, m) for path, m in module.named_modules() if isinstance(m, nn.Conv2d)]
    return [path for path, conv in found[1:] if max(conv.kernel_size) > 1 and conv not in halves]


def can_be_factorized(module: nn.Module, path: str) -> bool:
    """Whether the convolution at a path has two factors that act as it does."""
    return _obstacle(_convolution(module, path)) is None


def factorizable(module: nn.Module, path: str) -> nn.Conv2d:
    """Return the convolution at a path; SettingError when there is none, or none that can be factorized."""
    conv = _convolution(module, path)
    obstacle = _obstacle(conv)
    if obstacle:
        raise SettingError(f"{path}: {obstacle}")
    return conv


def full_rank(conv: nn.Conv2d) -> int:
    """The rank at which the two factors are exactly the convolution: min(c_out, c_in d^2)."""
    return min(conv.weight.shape[0], conv.weight[0].numel())


def decompose(conv: nn.Conv2d) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, S, V^T of the c_out x (c_in d^2) weight matrix, the largest singular value first.

    In float64: the factors of a float32 weight then reproduce it to float32 rounding.
    """
    u, s, v = torch.linalg.svd(conv.weight.detach().double().flatten(1), full_matrices=False)
    return u, s, v


def smallest_rank(conv: nn.Conv2d, energy: float) -> int:
    """The smallest rank that keeps a share of the squared singular values."""
    _, s, _ = decompose(conv)
    kept = s.square().cumsum(0) / s.square().sum()
    return int((kept < energy * (1 - 1e-12)).sum()) + 1


def factorized(module: nn.Module, ranks: Mapping[str, int]) -> nn.Module:
    """Return a copy of a model in which the convolutions at some paths are FFConv2d of those ranks.

    Raises:
        SettingError: names the path that is no such convolution, or whose rank is outside 1..full_rank.
    """
    result = copy.deepcopy(module)
    for path, rank in ranks.items():
        pair = _pair_of(path, factorizable(result, path), rank)
        if not path:
            return pair
        parent, _, name = path.rpartition(".")
        setattr(result.get_submodule(parent), name, pair)
    return result


def _convolution(module: nn.Module, path: str) -> nn.Conv2d:
    try:
        found = module.get_submodule(path)
    except AttributeError:
        raise SettingError(f"{path}: the model has no such module") from None
    if not isinstance(found, nn.Conv2d):
        raise SettingError(f"{path}: only Conv2d can be factorized, this is {type(found).__name__}")
    return found


def _obstacle(conv: nn.Conv2d) -> str | None:
    if conv.groups != 1 or conv.dilation != (1, 1):
        return (
            f"groups {conv.groups}, dilation {conv.dilation}: only a convolution without groups and dilation "
            "can be factorized; leave it out of layers"
        )
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return f"padding {conv.padding!r} in mode {conv.padding_mode!r}: give zero padding as numbers"
    return None


def _pair_of(path: str, conv: nn.Conv2d, rank: int) -> FFConv2d:
    u, s, v = decompose(conv)
    if not 1 <= rank <= len(s):
        raise SettingError(f"{path}: rank {rank} is outside 1..{len(s)}")
    c_out, c_in, *kernel = conv.weight.shape
    result = FFConv2d(
        c_in, c_out, (kernel[0], kernel[1]), rank, _two(conv.stride), _two(conv.padding), conv.bias is not None
    ).to(conv.weight)
    root = s[:rank].sqrt()
    with torch.no_grad():
        result.spatial.weight.copy_((root[:, None] * v[:rank]).reshape(rank, c_in, *kernel))
        result.pointwise.weight.copy_((u[:, :rank] * root).reshape(c_out, rank, 1, 1))
        if conv.bias is not None and result.pointwise.bias is not None:
            result.pointwise.bias.copy_(conv.bias)
    return result.train(conv.training)


def _two(value: str | tuple[int, ...]) -> tuple[int, int]:
    assert not isinstance(value, str)  # an obstacle, refused before
    return value[0], value[1]

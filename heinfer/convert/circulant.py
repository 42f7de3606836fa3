"""Block-circulant layers nearest to trained ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from heinfer.convert.svd import factorizable
from heinfer.errors import SettingError
from heinfer.nn import BlockCirculantConv2d, BlockCirculantLinear
from heinfer.nn.circulant import nearest_circulant


def circulant(module: nn.Module, blocks: Mapping[str, int]) -> nn.Module:
    """Return a copy of a model in which some layers are block-circulant, as near to theirs as can be; then fine-tune.

    Each circulant block is the mean along the diagonals of the weights that were there, which is nearest in the
    Frobenius norm. Source: Falcon, NeurIPS 2020.

    Args:
        module: any model.
        blocks: block size, a power of two, by the path of a Conv2d or Linear, such as ``conv2`` or ``fc1``.

    Raises:
        SettingError: a path that names neither, a grouped, dilated or not zero-padded convolution, or a block size.
    """
    result = copy.deepcopy(module)
    for path, block in blocks.items():
        made = _circulant(result, path, block)
        if not path:
            return made
        parent, _, name = path.rpartition(".")
        setattr(result.get_submodule(parent), name, made)
    return result


def _circulant(module: nn.Module, path: str, block: int) -> nn.Module:
    try:
        layer = module.get_submodule(path)
    except AttributeError:
        raise SettingError(f"{path}: the model has no such module") from None
    made: BlockCirculantConv2d | BlockCirculantLinear
    if isinstance(layer, nn.Linear):
        made = BlockCirculantLinear(layer.in_features, layer.out_features, block, layer.bias is not None)
    elif isinstance(layer, nn.Conv2d):
        conv = factorizable(module, path)
        (c_out, c_in), kernel = conv.weight.shape[:2], (conv.weight.shape[2], conv.weight.shape[3])
        stride, padding = (conv.stride[0], conv.stride[1]), _zeros(conv)
        made = BlockCirculantConv2d(c_in, c_out, kernel, block, stride, padding, conv.bias is not None)
    else:
        raise SettingError(f"{path}: only Conv2d and Linear can be block-circulant, this is {type(layer).__name__}")
    made = made.to(layer.weight)
    with torch.no_grad():
        made.spectral.weight.copy_(nearest_circulant(layer.weight, block).reshape(made.spectral.weight.shape))
        if layer.bias is not None and made.inverse.bias is not None:
            made.inverse.bias.copy_(layer.bias)
    return made.train(layer.training)


def _zeros(conv: nn.Conv2d) -> tuple[int, int]:
    assert not isinstance(conv.padding, str)  # refused by factorizable
    return conv.padding[0], conv.padding[1]

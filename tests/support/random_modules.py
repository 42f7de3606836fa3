"""Random torch modules: the networks of random_networks.py as what a user would compile."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heinfer.network.ir import INPUT, Network
from heinfer.network.joints import Add, Concat, Joint
from heinfer.network.operators import (
    AveragePool,
    ChannelAffine,
    Convolution,
    Dense,
    Flatten,
    Operator,
    Polynomial,
    Shape,
    Square,
)
from heinfer.nn import PolyActivation


class Module(nn.Module):
    """A network of operators in torch, in float64; its polynomials and squares are activations with such b and c."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.reads = network.reads
        self.joints = [node.operator if isinstance(node.operator, Joint) else None for node in network.nodes]
        shapes = {INPUT: network.input_shape} | dict(enumerate(network.shapes))
        self.layers = nn.ModuleList(
            nn.Identity() if isinstance(node.operator, Joint) else _layer(node.operator, shapes[reads[0]])
            for node, reads in zip(network.nodes, network.reads, strict=True)
        )
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        values = {INPUT: x}
        for position, layer in enumerate(self.layers):
            read = [values[i] for i in self.reads[position]]
            match self.joints[position]:
                case Add():
                    total = read[0]
                    for other in read[1:]:
                        total = total + other
                    values[position] = total
                case Concat():
                    values[position] = torch.cat(read, dim=1)
                case _:
                    values[position] = layer(*read)
        return values[len(self.layers) - 1]


def _layer(operator: Operator, shape: Shape) -> nn.Module:
    match operator:
        case Convolution(weight, bias, stride, padding, dilation, groups):
            kernel = weight.shape[2:]
            made = nn.Conv2d(shape[0], bias.size, kernel, stride, padding, dilation, groups)
            return _with(made, weight=weight, bias=bias)
        case Dense(weight, bias):
            return _with(nn.Linear(weight.shape[1], bias.size), weight=weight, bias=bias)
        case ChannelAffine(scale, shift):
            norm = nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0])
            return _with(norm, weight=scale, bias=shift, running_mean=scale - shift)
        case AveragePool(kernel, stride):
            return nn.AvgPool2d(kernel, stride)
        case Polynomial(b=b, c=c):
            return _with(PolyActivation(shape[0]), b=b, c=c)
        case Square():
            return _with(PolyActivation(shape[0]), b=torch.zeros(()), c=torch.zeros(()))
        case Flatten():
            return nn.Flatten()
    raise TypeError(type(operator).__name__)


def _with(module: nn.Module, **values: object) -> nn.Module:
    """A module with other parameters and buffers; one value is for all channels."""
    module.double()
    with torch.no_grad():
        for name, value in values.items():
            tensor = getattr(module, name)
            tensor.copy_(torch.as_tensor(value, dtype=torch.float64).expand_as(tensor))
    return module

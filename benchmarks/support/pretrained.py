"""Networks of which people have trained weights, with polynomials for ReLU and means for maxima, so that they encrypt.

Layers and widths are those of torchvision (BSD 3-Clause): without the polynomials' their parameters are as many.
Maxima over 3 x 3 in strides of 2 with padding are means over 2 x 2: they lead to the same sizes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from heinfer.nn import PolyActivation


def resnet18(side: int = 224, classes: int = 1000) -> nn.Module:
    """torchvision's resnet18 (arXiv 1512.03385)."""
    layers: list[nn.Module] = [_normalised(3, 64, 7, 2), nn.AvgPool2d(2)]
    last = 64
    for number, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            layers.append(Residual(last, width, 2 if number and not block else 1))
            last = width
    return nn.Sequential(*layers, nn.AvgPool2d(side // 32), nn.Flatten(), nn.Linear(last, classes))


def squeezenet1_1(classes: int = 1000) -> nn.Module:
    """torchvision's squeezenet1_1 (arXiv 1602.07360), of pictures of 224 x 224."""
    fires = [[(64, 16, 64), (128, 16, 64)], [(128, 32, 128), (256, 32, 128)]]
    fires.append([(256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)])
    layers: list[nn.Module] = [_biased(3, 64, 3, stride=2, padding=0)]
    for group in fires:
        layers += [nn.AvgPool2d(3, 2), *(_Fire(*widths) for widths in group)]
    return nn.Sequential(*layers, _biased(512, classes, 1), nn.AvgPool2d(13), nn.Flatten())


def squeezenet_cifar() -> nn.Module:
    """SqueezeNet for CIFAR-10 with four fire modules (github.com/kaizouman/tensorsandbox, "Squeeze 0")."""
    layers = [_biased(3, 64, 3), nn.AvgPool2d(2), _Fire(64, 16, 64), _Fire(128, 16, 64)]
    layers += [nn.AvgPool2d(2), _Fire(128, 32, 128), _Fire(256, 32, 128)]
    return nn.Sequential(*layers, nn.Conv2d(256, 10, 1), nn.AvgPool2d(8), nn.Flatten())


def mobilenet_v1(side: int = 224, classes: int = 1000) -> nn.Module:
    """MobileNet (arXiv 1704.04861, table 1), width 1."""
    widths = (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)
    layers: list[nn.Module] = [_normalised(3, 32, 3, 2)]
    last = 32
    for width, stride in widths:
        layers += [_normalised(last, last, 3, stride, groups=last), _normalised(last, width, 1)]
        last = width
    return nn.Sequential(*layers, nn.AvgPool2d(side // 32), nn.Flatten(), nn.Linear(last, classes))


def mobilenet_v2(side: int = 224, classes: int = 1000) -> nn.Module:
    """torchvision's mobilenet_v2 (arXiv 1801.04381)."""
    layers: list[nn.Module] = [_normalised(3, 32, 3, 2)]
    last = 32
    for inputs, outputs, stride, factor in _inverted(last):
        layers.append(_Inverted(inputs, outputs, stride, factor))
        last = outputs
    layers.append(_normalised(last, 1280, 1))
    return nn.Sequential(*layers, nn.AvgPool2d(side // 32), nn.Flatten(), nn.Linear(1280, classes))


def _inverted(last: int) -> Iterator[tuple[int, int, int, int]]:
    """Inputs, outputs, stride and expansion of every block (table 2)."""
    groups = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    for factor, width, blocks, stride in groups:
        for block in range(blocks):
            yield last, width, 1 if block else stride, factor
            last = width


class Residual(nn.Module):
    """Two convolutions of 3 x 3 beside what they read, or a convolution of 1 x 1 of it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = _normalised(inputs, outputs, 3, stride), _normalised(outputs, outputs, 3, activated=False)
        same = (inputs, stride) == (outputs, 1)
        self.way = nn.Identity() if same else _normalised(inputs, outputs, 1, stride, activated=False)
        self.activation = PolyActivation(outputs)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.two(self.one(x)) + self.way(x))
        return result


class _Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = _biased(inputs, squeezed, 1)
        self.one, self.three = _biased(squeezed, expanded, 1), _biased(squeezed, expanded, 3)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x)
        return torch.cat([self.one(squeezed), self.three(squeezed)], 1)


class _Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        inner = inputs * factor
        first = [] if factor == 1 else [_normalised(inputs, inner, 1)]
        depthwise = _normalised(inner, inner, 3, stride, groups=inner)
        self.body = nn.Sequential(*first, depthwise, _normalised(inner, outputs, 1, activated=False))
        self.is_residual = (inputs, stride) == (outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x) if self.is_residual else self.body(x)
        return result


def _normalised(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, activated: bool = True
) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    after = [PolyActivation(outputs)] if activated else []
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), *after)


def _biased(inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int | None = None) -> nn.Sequential:
    padded = kernel // 2 if padding is None else padding
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padded), PolyActivation(outputs))

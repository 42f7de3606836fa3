"""Networks of growing size, to plan: by channels, side, depth, and some that people bring; weights are random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from benchmarks.support.pretrained import (
    Residual,
    mobilenet_v1,
    mobilenet_v2,
    resnet18,
    squeezenet1_1,
    squeezenet_cifar,
)
from heinfer.nn import PolyActivation

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Sized:
    """A network of the curve that it is on: what grows along it, and how large that is."""

    name: str
    curve: str
    size: int
    build: Callable[[], nn.Module]
    shape: Shape


def plain(channels: int, depth: int, side: int) -> nn.Module:
    """Convolutions of 3 x 3 with equal channels, a mean and a dense layer."""
    layers = [_conv(3, channels, 3), *(_conv(channels, channels, 3) for _ in range(depth - 1))]
    return nn.Sequential(*layers, *_head(channels, side))


def strided(first: int, second: int, third: int, side: int = 32) -> nn.Module:
    """Six convolutions, three of stride 2 (5 x 5 and 4 x 4), each stride followed by one of 3 x 3: 13 levels."""
    layers = [_conv(3, first, 5, 2), _conv(first, first, 3), _conv(first, second, 4, 2), _conv(second, second, 3)]
    layers += [_conv(second, third, 4, 2), _conv(third, third, 3)]
    return nn.Sequential(*layers, *_head(third, side // 8))


def residual(widths: Sequence[int], blocks: Sequence[int], side: int = 32) -> nn.Module:
    """ResNet for CIFAR-10 (arXiv 1512.03385, section 4.2; shortcuts of 1 x 1): one stride of 2 between widths."""
    layers: list[nn.Module] = [_conv(3, widths[0], 3)]
    last = widths[0]
    for number, width in enumerate(widths):
        for block in range(blocks[number]):
            layers.append(Residual(last, width, 2 if number and not block else 1))
            last = width
    return nn.Sequential(*layers, *_head(last, side >> (len(widths) - 1)))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), PolyActivation(outputs))


def _head(channels: int, side: int) -> tuple[nn.Module, ...]:
    return nn.AvgPool2d(side), nn.Flatten(), nn.Linear(channels, 10)


def _plain(curve: str, size: int, channels: int, depth: int, side: int) -> Sized:
    name = f"{depth} x {channels} at {side}"
    return Sized(name, curve, size, lambda: plain(channels, depth, side), (3, side, side))


SIZED = (
    *(_plain("channels", channels, channels, 3, 32) for channels in (8, 16, 24, 32, 48, 64, 96)),
    *(_plain("side", side, 16, 3, side) for side in (8, 16, 48, 64)),  # and of 32 among the channels
    *(_plain("depth", depth, 16, depth, 16) for depth in (2, 4, 8, 12)),
    Sized("c13 32-64-128", "strided", 32, lambda: strided(32, 64, 128), (3, 32, 32)),
    Sized("c13 64-128-256", "strided", 64, lambda: strided(64, 128, 256), (3, 32, 32)),
    Sized("c13 64-256-256", "strided", 64, lambda: strided(64, 256, 256), (3, 32, 32)),
    Sized("ResNet-8", "residual", 8, lambda: residual((16, 32, 64), (1, 1, 1)), (3, 32, 32)),
    Sized("ResNet-20", "residual", 20, lambda: residual((16, 32, 64), (3, 3, 3)), (3, 32, 32)),
    Sized("ResNet-18", "residual", 18, lambda: residual((64, 128, 256, 512), (2, 2, 2, 2)), (3, 32, 32)),
    Sized("SqueezeNet at 32", "published", 32, squeezenet_cifar, (3, 32, 32)),
    Sized("squeezenet1_1 at 224", "published", 224, squeezenet1_1, (3, 224, 224)),
    Sized("resnet18 at 224", "published", 224, resnet18, (3, 224, 224)),
    Sized("MobileNet at 224", "published", 224, mobilenet_v1, (3, 224, 224)),
    Sized("mobilenet_v2 at 224", "published", 224, mobilenet_v2, (3, 224, 224)),
)

"""The reference networks. Encrypted plans are made for their structure, so it is fixed.

Each takes a batch of normalised images and returns (B, 10) scores.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from heinfer.nn import BlockCirculantConv2d, BlockCirculantLinear, FFConv2d, PolyActivation

RANK, CIFAR_RANK = 4, 16
"""Of the factorized convolution of ``mnist_ffconv`` and ``lola_cifar_ffconv``."""
MNIST_BLOCK, CIFAR_BLOCK = 16, 32
"""Of the block-circulant layers of ``lola_mnist_falcon`` and ``lola_cifar_falcon``."""


def mnist_plain() -> nn.Sequential:
    """Two plain convolutions and a dense layer; takes (B, 1, 28, 28).

    Five levels: convolution, activation, convolution, activation, dense.
    """
    return _mnist(nn.Conv2d(8, 32, 5, stride=2, padding=2))


def mnist_ffconv(rank: int = RANK) -> nn.Sequential:
    """``mnist_plain`` with its second convolution factorized: one level more."""
    return _mnist(FFConv2d(8, 32, 5, rank=rank, stride=2, padding=2))


def lola_mnist() -> nn.Sequential:
    """The MNIST network of LoLa (arXiv 1812.10659), squares replaced by learned quadratics; takes (B, 1, 28, 28)."""
    return _lola_mnist(nn.Linear(5 * 13 * 13, 100))


def lola_mnist_falcon(block: int = MNIST_BLOCK) -> nn.Sequential:
    """``lola_mnist`` with its first dense layer block-circulant."""
    return _lola_mnist(BlockCirculantLinear(5 * 13 * 13, 100, block))


def lenet5_mnist() -> nn.Sequential:
    """LeNet-5 with average pools and learned quadratics; takes (B, 1, 28, 28)."""
    return _chain(
        conv1=nn.Conv2d(1, 6, 5, padding=2),
        **_activated(1, nn.BatchNorm2d(6)),
        pool1=nn.AvgPool2d(2),
        conv2=nn.Conv2d(6, 16, 5),
        **_activated(2, nn.BatchNorm2d(16)),
        pool2=nn.AvgPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(16 * 5 * 5, 120),
        **_activated(3, nn.BatchNorm1d(120)),
        fc2=nn.Linear(120, 84),
        **_activated(4, nn.BatchNorm1d(84)),
        fc3=nn.Linear(84, 10),
    )


def lola_cifar() -> nn.Sequential:
    """The CIFAR-10 network of LoLa, squares replaced by learned quadratics; takes (B, 3, 32, 32)."""
    return _lola_cifar(nn.Conv2d(83, 163, 6, stride=2, padding=2))


def lola_cifar_ffconv(rank: int = CIFAR_RANK) -> nn.Sequential:
    """``lola_cifar`` with its second convolution factorized."""
    return _lola_cifar(FFConv2d(83, 163, 6, rank=rank, stride=2, padding=2))


def lola_cifar_falcon(block: int = CIFAR_BLOCK) -> nn.Sequential:
    """``lola_cifar`` with its second convolution block-circulant."""
    return _lola_cifar(BlockCirculantConv2d(83, 163, 6, block, stride=2, padding=2))


def cifar_plain() -> nn.Sequential:
    """Three plain convolutions of 32, 64 and 128 channels and a dense layer; takes (B, 3, 32, 32)."""
    return _cifar(nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 128, 3, padding=1))


def cifar_ffconv() -> nn.Sequential:
    """``cifar_plain`` with its second and third convolution factorized at ranks 16 and 32."""
    return _cifar(FFConv2d(32, 64, 3, rank=16, padding=1), FFConv2d(64, 128, 3, rank=32, padding=1))


class Residual(nn.Module):
    """Two convolutions of 3 x 3 with an activation between them, added to a shortcut: x, or a convolution of 1 x 1.

    Args:
        c_in, c_out: channels.
        stride: of the first convolution, and of the shortcut.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.act1 = PolyActivation(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(c_out)
        alike = stride == 1 and c_in == c_out
        self.shortcut: nn.Module = nn.Identity() if alike else nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return torch.add(y, self.shortcut(x))


def cifar_fast() -> nn.Sequential:
    """Strides instead of pools, 32, 64 and 64 channels: the least predicted time found; takes (B, 3, 32, 32).

    Seven levels: three times (convolution, activation), dense.
    """
    return _chain(
        conv1=nn.Conv2d(3, 32, 5, stride=2, padding=2),
        **_activated(1, nn.BatchNorm2d(32)),
        conv2=nn.Conv2d(32, 64, 3, stride=2, padding=1),
        **_activated(2, nn.BatchNorm2d(64)),
        conv3=nn.Conv2d(64, 64, 3, stride=2, padding=1),
        **_activated(3, nn.BatchNorm2d(64)),
        flatten=nn.Flatten(),
        fc=nn.Linear(64 * 4 * 4, 10),
    )


def cifar_accurate() -> nn.Sequential:
    """Two residual blocks of 32 and 64 channels and a convolution to 128; takes (B, 3, 32, 32).

    Thirteen levels: convolution, activation, twice (convolution, activation, convolution with the sum, activation),
    convolution, activation, pool and dense layer in one.
    """
    return _chain(
        conv1=nn.Conv2d(3, 32, 5, stride=2, padding=2),
        **_activated(1, nn.BatchNorm2d(32)),
        block1=Residual(32, 32),
        act2=PolyActivation(32),
        block2=Residual(32, 64, stride=2),
        act3=PolyActivation(64),
        conv4=nn.Conv2d(64, 128, 3, padding=1),
        **_activated(4, nn.BatchNorm2d(128)),
        pool=nn.AvgPool2d(2),
        flatten=nn.Flatten(),
        fc=nn.Linear(128 * 4 * 4, 10),
    )


def cifar_resnet() -> nn.Sequential:
    """Two residual blocks of 16 and 32 channels; takes (B, 3, 32, 32).

    Eleven levels: convolution, activation, twice (convolution, activation, convolution with the sum, activation), pool
    and dense layer in one.
    """
    return _chain(
        conv1=nn.Conv2d(3, 16, 5, stride=2, padding=2),
        **_activated(1, nn.BatchNorm2d(16)),
        block1=Residual(16, 16),
        act2=PolyActivation(16),
        block2=Residual(16, 32, stride=2),
        act3=PolyActivation(32),
        pool=nn.AvgPool2d(2),
        flatten=nn.Flatten(),
        fc=nn.Linear(32 * 4 * 4, 10),
    )


def _mnist(conv2: nn.Module) -> nn.Sequential:
    return _chain(
        conv1=nn.Conv2d(1, 8, 5, stride=2, padding=2),
        **_activated(1, nn.BatchNorm2d(8)),
        conv2=conv2,
        **_activated(2, nn.BatchNorm2d(32)),
        flatten=nn.Flatten(),
        fc=nn.Linear(32 * 7 * 7, 10),
    )


def _lola_mnist(fc1: nn.Module) -> nn.Sequential:
    return _chain(
        conv1=nn.Conv2d(1, 5, 5, stride=2, padding=1),
        **_activated(1, nn.BatchNorm2d(5)),
        flatten=nn.Flatten(),
        fc1=fc1,
        **_activated(2, nn.BatchNorm1d(100)),
        fc2=nn.Linear(100, 10),
    )


def _lola_cifar(conv2: nn.Module) -> nn.Sequential:
    return _chain(
        conv1=nn.Conv2d(3, 83, 8, stride=2, padding=1),
        **_activated(1, nn.BatchNorm2d(83)),
        conv2=conv2,
        **_activated(2, nn.BatchNorm2d(163)),
        flatten=nn.Flatten(),
        fc=nn.Linear(163 * 7 * 7, 10),
    )


def _cifar(conv2: nn.Module, conv3: nn.Module) -> nn.Sequential:
    return _chain(
        conv1=nn.Conv2d(3, 32, 5, stride=2, padding=2),
        **_activated(1, nn.BatchNorm2d(32)),
        conv2=conv2,
        **_activated(2, nn.BatchNorm2d(64)),
        pool2=nn.AvgPool2d(2),
        conv3=conv3,
        **_activated(3, nn.BatchNorm2d(128)),
        pool3=nn.AvgPool2d(2),
        flatten=nn.Flatten(),
        fc=nn.Linear(128 * 4 * 4, 10),
    )


def _activated(number: int, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> dict[str, nn.Module]:
    return {f"bn{number}": norm, f"act{number}": PolyActivation(norm.num_features)}


def _chain(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))

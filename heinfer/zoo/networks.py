"""The reference networks. Encrypted plans are made for their structure, so it is fixed."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from heinfer.nn import FFConv2d, PolyActivation

RANK = 4
"""Of the factorized convolution."""


def mnist_plain() -> nn.Sequential:
    """Two plain convolutions and a dense layer; takes (B, 1, 28, 28) normalised, returns (B, 10) scores.

    Five levels: convolution, activation, convolution, activation, dense.
    """
    return _mnist(nn.Conv2d(8, 32, 5, stride=2, padding=2))


def mnist_ffconv() -> nn.Sequential:
    """``mnist_plain`` with its second convolution factorized at rank 4: one level more."""
    return _mnist(FFConv2d(8, 32, 5, rank=RANK, stride=2, padding=2))


def _mnist(conv2: nn.Module) -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(1, 8, 5, stride=2, padding=2)),
        ("bn1", nn.BatchNorm2d(8)),
        ("act1", PolyActivation(8)),
        ("conv2", conv2),
        ("bn2", nn.BatchNorm2d(32)),
        ("act2", PolyActivation(32)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(32 * 7 * 7, 10)),
    ]
    return nn.Sequential(OrderedDict(layers))

"""Small networks like those that people bring: other inputs than images near one, other layers than the zoo's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import heinfer
from heinfer.compiler.model import CompiledModel
from heinfer.nn import PolyActivation
from heinfer.planner.requirements import DEFAULT, Requirements

CALIBRATION = 256
"""Inputs; another seed draws those that are measured."""


@dataclass(frozen=True)
class Foreign:
    """A network with random weights and the inputs that it takes: uniform within their declared range.

    Attributes:
        labelled: whether its scores are those of a classification.
        divisor: of what the first layer is given: the network has inputs near one, its weights are that much smaller.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    low: float = -1.0
    high: float = 1.0
    labelled: bool = False
    divisor: float = 1.0

    def inputs(self, count: int, seed: int) -> NDArray[np.float64]:
        """Preprocessed inputs, shape (count, *shape)."""
        return np.random.default_rng(seed).uniform(self.low, self.high, (count, *self.shape))

    def compiled(self, requirements: Requirements = DEFAULT) -> CompiledModel:
        """Compiled with weights of a fixed seed; batch norms have the statistics of the calibration inputs."""
        torch.manual_seed(0)
        module, inputs = self.build().double(), self.inputs(CALIBRATION, seed=0)
        for layer in islice((m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)), 1):
            layer.weight.data /= self.divisor
        _normalise(module, inputs)
        channels = self.shape[0] if len(self.shape) == 3 else 1
        values = heinfer.Preprocessing(
            divisor=1, mean=(0,) * channels, std=(1,) * channels, low=self.low, high=self.high, kind="values"
        )
        with torch.no_grad():
            scores = module(torch.from_numpy(inputs[:1])).numel()
        labels = tuple(f"label {n}" for n in range(scores)) if self.labelled else ()
        return heinfer.compile(
            module, inputs, name=self.name, preprocessing=values, labels=labels, requirements=requirements
        )


def _normalise(module: nn.Module, inputs: NDArray[np.float64]) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # the mean over batches, of which there is one
    with torch.no_grad():
        module.train()(torch.from_numpy(inputs))
    module.eval()


class _DenseBlock(nn.Module):
    """Every layer reads all before it."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + n * growth),
                PolyActivation(channels + n * growth),
                nn.Conv2d(channels + n * growth, growth, 3, padding=1),
            )
            for n in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        return x


class _Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)  # type: ignore[no-any-return]


def _perceptron(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), PolyActivation(outputs)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def _convolution(channels: int, out: int, kernel: int | tuple[int, int], **of: int | tuple[int, int]) -> nn.Module:
    """A convolution with what follows one."""
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, **of),  # type: ignore[arg-type]
        nn.BatchNorm2d(out),
        PolyActivation(out),
    )


def _classifier(features: nn.Module, width: int, scores: int) -> nn.Module:
    return nn.Sequential(features, nn.Flatten(), nn.Linear(width, scores))


def _gains(width: int) -> nn.Module:
    """Weights to 300, as of seed 51 of a search for refusals."""
    layer = nn.Linear(width, 3)
    nn.init.uniform_(layer.weight, -300, 300)
    return layer


def _ecg() -> nn.Module:
    return nn.Sequential(
        _convolution(1, 4, (1, 7), stride=(1, 3)),
        _convolution(4, 8, (1, 5), stride=(1, 3)),
        nn.AvgPool2d((1, 3)),
        nn.Flatten(),
        nn.Linear(48, 5),
    )


FOREIGN = (
    Foreign("logistic-1", lambda: nn.Linear(30, 2), (30,), 0, 1, labelled=True),
    Foreign("logistic-255", lambda: nn.Linear(30, 2), (30,), 0, 255, labelled=True, divisor=255),
    Foreign("logistic-4000", lambda: nn.Linear(30, 2), (30,), 0, 4000, labelled=True, divisor=4000),
    Foreign("regression", lambda: nn.Linear(30, 1), (30,)),
    Foreign("gains-1000", lambda: _gains(20), (20,), -1000, 1000),
    Foreign("mlp-30-16-1", lambda: _perceptron(30, 16, 1), (30,)),
    Foreign("mlp-30-64-32-2", lambda: _perceptron(30, 64, 32, 2), (30,), labelled=True),
    Foreign("mlp-100", lambda: _perceptron(20, 32, 4), (20,), 0, 100, divisor=100),
    Foreign("autoencoder", lambda: _perceptron(784, 32, 784), (784,), 0, 1),
    Foreign("ecg-millivolts", _ecg, (1, 1, 187), labelled=True),
    Foreign("ecg-volts", _ecg, (1, 1, 187), -1e-3, 1e-3, labelled=True, divisor=1e-3),
    Foreign("convolution", lambda: nn.Conv2d(1, 4, 3), (1, 8, 8)),
    Foreign("convolution-255", lambda: nn.Conv2d(3, 4, 3), (3, 8, 8), 0, 255, divisor=255),
    Foreign(
        "denoiser",
        lambda: nn.Sequential(_convolution(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)),
        (1, 28, 28),
        0,
        1,
    ),
    Foreign("grouped", lambda: _classifier(_convolution(4, 8, 3, groups=4), 8 * 36, 4), (4, 8, 8)),
    Foreign("dilated", lambda: _classifier(_convolution(2, 6, 3, dilation=2), 6 * 64, 4), (2, 12, 12)),
    Foreign("oblong", lambda: _classifier(_convolution(1, 4, (3, 5)), 4 * 18 * 29, 4), (1, 20, 33)),
    Foreign(
        "dense-block",
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), _DenseBlock(4, 4, 2), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(12, 5)
        ),
        (3, 8, 8),
        labelled=True,
    ),
    Foreign(
        "residual",
        lambda: nn.Sequential(
            _convolution(1, 4, 3, padding=1),
            _Residual(_convolution(4, 4, 3, padding=1)),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 4),
        ),
        (1, 8, 8),
        labelled=True,
    ),
    Foreign(
        "depthwise",
        lambda: nn.Sequential(
            _convolution(3, 8, 1),
            _convolution(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 4, 1),
            nn.AvgPool2d(16),
            nn.Flatten(),
        ),
        (3, 16, 16),
        labelled=True,
    ),
    Foreign(
        "patches", lambda: _classifier(_convolution(3, 8, 8, stride=8), 8 * 36, 10), (3, 48, 48), 0, 1, labelled=True
    ),
    Foreign("activation", lambda: nn.Sequential(PolyActivation(1)), (1, 6, 6)),
    Foreign(
        "deep",
        lambda: nn.Sequential(
            *(_convolution(c, 4, 3, padding=1) for c in (1, 4, 4, 4)), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(4, 3)
        ),
        (1, 8, 8),
        labelled=True,
    ),
    Foreign("biased-inputs", lambda: _perceptron(16, 16, 3), (16,), 90, 110, labelled=True, divisor=100),
)

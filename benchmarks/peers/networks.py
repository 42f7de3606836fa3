"""The peers' networks as torch modules, with layers named as the peers name them, trained for a moment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heinfer.nn import PolyActivation
from heinfer.zoo.data import mnist

Array = NDArray[np.float64]

SEED = 0
_BATCH = 64
_LEARNING_RATE = 1e-3
_GRADIENT_NORM = 1.0
LARGEST_SCORE = 2.0
"""Of the images that calibrate: Orion's shipped parameters keep scores below 4 only (q_0 of 29 bits, scale of 26)."""


class Square(PolyActivation):
    """x^2, which learns nothing."""

    def __init__(self, channels: int) -> None:
        nn.Module.__init__(self)
        self.channels = channels

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        zero = torch.zeros(self.channels)
        return torch.ones(self.channels), zero, zero


def tutorial() -> nn.Sequential:
    """TenSEAL's tutorial 4."""
    return _chain(
        conv1=nn.Conv2d(1, 4, 7, stride=3),
        act1=Square(4),
        flatten=nn.Flatten(),
        fc1=nn.Linear(256, 64),
        act2=Square(64),
        fc2=nn.Linear(64, 10),
    )


def lola() -> nn.Sequential:
    """orion.models.LoLA."""
    return _chain(
        conv1=nn.Conv2d(1, 5, 2, stride=2),
        bn1=nn.BatchNorm2d(5),
        act1=Square(5),
        flatten=nn.Flatten(),
        fc1=nn.Linear(980, 100),
        bn2=nn.BatchNorm1d(100),
        act2=Square(100),
        fc2=nn.Linear(100, 10),
    )


def mlp() -> nn.Sequential:
    """orion.models.MLP."""
    return _chain(
        flatten=nn.Flatten(),
        fc1=nn.Linear(784, 128),
        bn1=nn.BatchNorm1d(128),
        act1=Square(128),
        fc2=nn.Linear(128, 128),
        bn2=nn.BatchNorm1d(128),
        act2=Square(128),
        fc3=nn.Linear(128, 10),
    )


def lenet() -> nn.Sequential:
    """orion.models.LeNet."""
    return _chain(
        conv1=nn.Conv2d(1, 32, 5, stride=2, padding=2),
        bn1=nn.BatchNorm2d(32),
        act1=Square(32),
        conv2=nn.Conv2d(32, 64, 5, stride=2, padding=2),
        bn2=nn.BatchNorm2d(64),
        act2=Square(64),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64 * 7 * 7, 512),
        bn3=nn.BatchNorm1d(512),
        act3=Square(512),
        fc2=nn.Linear(512, 10),
    )


BUILDERS: dict[str, Callable[[], nn.Sequential]] = {"tutorial": tutorial, "lola": lola, "mlp": mlp, "lenet": lenet}


def trained(name: str, images: Array, labels: NDArray[np.int64], calibration: Array) -> nn.Sequential:
    """A network trained on the images once, its scores brought into a range that every peer can hold.

    Args:
        images: (n, 1, 28, 28) with values in [0, 1].
        labels: (n,).
        calibration: images whose largest score becomes LARGEST_SCORE.
    """
    torch.manual_seed(SEED)
    module = BUILDERS[name]()
    _fit(module, torch.from_numpy(images).float(), torch.from_numpy(labels))
    module.eval()
    largest = float(np.abs(scores(module, calibration)).max())
    last = module[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(LARGEST_SCORE / largest)
    return module


def scores(module: nn.Module, images: Array) -> Array:
    """What the network gives in the clear, in double precision: (n, 10)."""
    with torch.no_grad():
        result = module.double()(torch.from_numpy(images))
    module.float()
    return np.asarray(result.numpy(), dtype=np.float64)


def training_images(data_dir: Path | None = None) -> tuple[Array, NDArray[np.int64]]:
    """The training images of MNIST with values in [0, 1], (n, 1, 28, 28), and their labels."""
    train = mnist(data_dir).whole
    return in_unit_range(train.images), np.asarray(train.labels, dtype=np.int64)


def in_unit_range(pixels: NDArray[np.uint8]) -> Array:
    """Inputs (n, 1, 28, 28) in [0, 1] from bytes (n, 28, 28)."""
    return np.asarray(pixels, dtype=np.float64).reshape(-1, 1, 28, 28) / 255


def _chain(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _fit(module: nn.Module, images: Tensor, labels: Tensor) -> None:
    module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=_LEARNING_RATE)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    for chosen in torch.split(order, _BATCH)[: len(labels) // _BATCH]:
        optimizer.zero_grad()
        loss = functional.cross_entropy(module(images[chosen]), labels[chosen])
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(module.parameters(), _GRADIENT_NORM)
        optimizer.step()

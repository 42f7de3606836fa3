"""Every foreign network: how it is built, what it learns from, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from benchmarks.foreign import data, networks
from benchmarks.foreign.data import Task
from heinfer.errors import SettingError
from heinfer.zoo.augment import Distortion, FlipAndShift
from heinfer.zoo.recipes import Recipe


@dataclass(frozen=True)
class Unchanged:
    """No augmentation."""

    def __call__(self, images: Tensor, background: float, generator: object) -> Tensor:  # noqa: ARG002
        """Return the inputs."""
        return images


@dataclass(frozen=True)
class Foreign:
    """A network, a function that loads its task, its recipe, and what augmentation fills in."""

    name: str
    build: Callable[[], nn.Module]
    task: Callable[[], Task]
    recipe: Recipe
    background: float = 0.0


_COLOURS = Recipe(
    epochs=16,
    learning_rate=1e-2,
    weight_decay=5e-2,
    label_smoothing=0.1,
    range_penalty=0.0,
    bfloat16=True,
    augmentation=FlipAndShift(shift=2),
)

_ALL = (
    Foreign(
        "lenet5",
        networks.lenet5,
        data.digits,
        Recipe(epochs=12, learning_rate=2e-3, range_penalty=0.0,
               augmentation=Distortion(rotation=8, shift=1, scale=0.1, shear=0.1, elastic=0.5)),
        background=-0.4242,
    ),
    Foreign(
        "ecg",
        networks.ecg,
        data.heartbeats,
        Recipe(epochs=20, learning_rate=3e-3, range_penalty=0.0, augmentation=Unchanged()),
    ),
    Foreign(
        "tabular",
        networks.tabular,
        data.tumours,
        Recipe(epochs=40, learning_rate=5e-3, batch_size=32, range_penalty=0.0, augmentation=Unchanged()),
    ),
    Foreign(
        "records",
        networks.tabular,
        data.records,
        Recipe(epochs=20, learning_rate=5e-3, batch_size=64, range_penalty=0.0, augmentation=Unchanged()),
    ),
    Foreign(
        "resnet8",
        networks.ResNet8,
        data.colours,
        Recipe(epochs=40, learning_rate=1e-2, weight_decay=2e-2, label_smoothing=0.05, range_penalty=0.0,
               bfloat16=True, augmentation=FlipAndShift(shift=2)),
    ),
    Foreign("vgg", networks.vgg, data.colours, _COLOURS),
)  # fmt: skip
FOREIGN = {network.name: network for network in _ALL}


def foreign(name: str) -> Foreign:
    """Return a network by name; SettingError names those there are."""
    try:
        return FOREIGN[name]
    except KeyError:
        raise SettingError(f"there is no foreign network {name!r}: choose one of {', '.join(FOREIGN)}") from None

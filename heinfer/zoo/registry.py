"""Every reference network: how it is built, on which data, from what, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from heinfer.errors import SettingError
from heinfer.zoo import NETWORKS, networks, recipes
from heinfer.zoo.data import CIFAR10, MNIST, DataSet
from heinfer.zoo.recipes import Recipe


@dataclass(frozen=True)
class Reference:
    """A reference network.

    Attributes:
        name: that commands know it by.
        build: makes it, with random weights.
        data: what it classifies.
        recipe: how it is trained; None when only its structure is of interest: what it costs, encrypted.
        base: name of the plain network whose trained weights it starts from; None to start from random ones.
    """

    name: str
    build: Callable[[], nn.Sequential]
    data: DataSet
    recipe: Recipe | None = None
    base: str | None = None


_ALL = (
    Reference("mnist-plain", networks.mnist_plain, MNIST, recipes.FULL),
    Reference("mnist-ffconv", networks.mnist_ffconv, MNIST, recipes.FULL, base="mnist-plain"),
    Reference("lola-mnist", networks.lola_mnist, MNIST, recipes.SHORT),
    Reference("lola-mnist-falcon", networks.lola_mnist_falcon, MNIST, recipes.SHORT, base="lola-mnist"),
    Reference("lenet5-mnist", networks.lenet5_mnist, MNIST, recipes.SHORT),
    Reference("lola-cifar", networks.lola_cifar, CIFAR10, recipes.COLOUR_WIDE),
    Reference("lola-cifar-ffconv", networks.lola_cifar_ffconv, CIFAR10, recipes.COLOUR_TUNED, base="lola-cifar"),
    Reference("lola-cifar-falcon", networks.lola_cifar_falcon, CIFAR10, recipes.COLOUR_TUNED, base="lola-cifar"),
    Reference("cifar-plain", networks.cifar_plain, CIFAR10, recipes.COLOUR),
    Reference("cifar-ffconv", networks.cifar_ffconv, CIFAR10, recipes.COLOUR, base="cifar-plain"),
    Reference("cifar-fast", networks.cifar_fast, CIFAR10, recipes.COLOUR_SMALL),
    Reference("cifar-accurate", networks.cifar_accurate, CIFAR10, recipes.COLOUR_LONG),
    Reference("cifar-resnet", networks.cifar_resnet, CIFAR10),
)
_BY_NAME = {network.name: network for network in _ALL}
assert tuple(_BY_NAME) == NETWORKS


def reference(name: str) -> Reference:
    """Return a reference network; SettingError names those there are."""
    if name not in _BY_NAME:
        raise SettingError(f"there is no network {name!r}: choose one of {', '.join(NETWORKS)}")
    return _BY_NAME[name]


def lineage(name: str) -> tuple[Reference, ...]:
    """Return what must be trained to have a network, in order; it comes last. SettingError for an unknown name."""
    network = reference(name)
    return (*lineage(network.base), network) if network.base else (network,)

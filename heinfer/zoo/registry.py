"""Every reference network: how it is built, on which data, from what, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

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
        build: makes it, with random weights; takes a rank or block size where ``sized``.
        data: what it classifies.
        recipe: how it is trained; None when only its structure is of interest: what it costs, encrypted.
        base: name of the plain network whose trained weights it starts from; None to start from random ones.
        sized: whether ``name@8`` is the same network with rank or block size 8.
        brief: a shorter recipe, to compare such sizes.
    """

    name: str
    build: Callable[..., nn.Sequential]
    data: DataSet
    recipe: Recipe | None = None
    base: str | None = None
    sized: bool = False
    brief: Recipe | None = None


def _form(name: str, build: Callable[..., nn.Sequential]) -> Reference:
    """Of LoLa's network for CIFAR-10."""
    recipe, brief = recipes.COLOUR_TUNED, recipes.COLOUR_BRIEF
    return Reference(name, build, CIFAR10, recipe, base="lola-cifar", sized=True, brief=brief)


_ALL = (
    Reference("mnist-plain", networks.mnist_plain, MNIST, recipes.FULL),
    Reference("mnist-ffconv", networks.mnist_ffconv, MNIST, recipes.FULL, base="mnist-plain", sized=True),
    Reference("lola-mnist", networks.lola_mnist, MNIST, recipes.SHORT),
    Reference("lola-mnist-falcon", networks.lola_mnist_falcon, MNIST, recipes.SHORT, base="lola-mnist", sized=True),
    Reference("lenet5-mnist", networks.lenet5_mnist, MNIST, recipes.SHORT),
    Reference("lola-cifar", networks.lola_cifar, CIFAR10, recipes.COLOUR_WIDE),
    _form("lola-cifar-ffconv", networks.lola_cifar_ffconv),
    _form("lola-cifar-falcon", networks.lola_cifar_falcon),
    Reference("cifar-plain", networks.cifar_plain, CIFAR10, recipes.COLOUR),
    Reference("cifar-ffconv", networks.cifar_ffconv, CIFAR10, recipes.COLOUR, base="cifar-plain"),
    Reference("cifar-fast", networks.cifar_fast, CIFAR10, recipes.COLOUR_SMALL),
    Reference("cifar-accurate", networks.cifar_accurate, CIFAR10, recipes.COLOUR_LONG),
    Reference("cifar-resnet", networks.cifar_resnet, CIFAR10),
)
_BY_NAME = {network.name: network for network in _ALL}
assert tuple(_BY_NAME) == NETWORKS


def reference(name: str) -> Reference:
    """Return a reference network, ``name@size`` with another rank or block size; SettingError names those there are."""
    stem, at, size = name.partition("@")
    network = _BY_NAME.get(stem)
    if network is None or (at and not (network.sized and size.isdecimal() and int(size))):
        sized = ", ".join(one.name for one in _ALL if one.sized)
        raise SettingError(
            f"there is no network {name!r}: choose one of {', '.join(NETWORKS)}, or NAME@SIZE of {sized}"
        )
    return replace(network, name=name, build=partial(network.build, int(size))) if at else network


def lineage(name: str) -> tuple[Reference, ...]:
    """Return what must be trained to have a network, in order; it comes last. SettingError for an unknown name."""
    network = reference(name)
    return (*lineage(network.base), network) if network.base else (network,)

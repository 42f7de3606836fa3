"""The networks of torchvision, with random weights and polynomials in place of their activations."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from benchmarks.torchvision.installed import models
from heinfer.convert import polynomialize

SEED = 0
_OF_BRANCH = 0.2
"""Of the norm of a branch beside an identity: sums of many branches stay near one, as of trained networks."""
NAMES = (
    "alexnet",
    "vgg11",
    "vgg11_bn",
    "resnet18",
    "resnet50",
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mnasnet0_5",
    "efficientnet_b0",
    "regnet_y_400mf",
    "shufflenet_v2_x0_5",
    "densenet121",
    "googlenet",
    "inception_v3",
)
REFUSED = ("vit_b_16", "convnext_tiny")
_NORMS = nn.BatchNorm1d | nn.BatchNorm2d
_AUXILIARY = {"googlenet", "inception_v3"}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network of polynomials.

    Attributes:
        module: in single precision and evaluation mode.
        activations, pools: how many became polynomials, and how many max pools became average pools.
    """

    module: nn.Module
    activations: int
    pools: int


def built(name: str) -> nn.Module:
    """A network as torchvision has it, with the weights that it begins with; of auxiliary classifiers it has none."""
    torch.manual_seed(SEED)
    options = {"aux_logits": False, "init_weights": True} if name in _AUXILIARY else {}
    module: nn.Module = getattr(models(), name)(weights=None, **options)
    return module.eval()


def shape_of(name: str) -> tuple[int, int, int]:
    """Of one image."""
    side = 299 if name == "inception_v3" else 224
    return 3, side, side


def images(shape: tuple[int, ...], count: int, seed: int = SEED) -> Tensor:
    """(count, *shape) as normalised photographs are, roughly: of mean 0 and deviation 1, within 2."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2)


def prepared(module: nn.Module, seen: Tensor) -> Prepared:
    """Weights drawn so that values stay near one, and a polynomial of degree 2 for each activation.

    Args:
        seen: images (n, 3, height, width), whose statistics are those of the batch normalisations.
    """
    torch.manual_seed(SEED)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, _NORMS):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    for norm in _beside_identities(module):
        nn.init.constant_(norm.weight, _OF_BRANCH)
    normalise(module, seen)
    found = polynomialize(module, seen, degree=2)
    normalise(found.module, seen)
    return Prepared(found.module, len(found.report.activations), found.report.pools)


def _beside_identities(module: nn.Module) -> Iterator[nn.BatchNorm2d]:
    """The normalisations whose result is added to a tensor that none has normalised since the last addition."""
    traced = fx.symbolic_trace(module)

    def norm_of(node: object) -> nn.BatchNorm2d | None:
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        layer = traced.get_submodule(str(node.target))
        return layer if isinstance(layer, nn.BatchNorm2d) else None

    for node in traced.graph.nodes:
        if node.target in (operator.add, operator.iadd):
            norms = [norm for norm in map(norm_of, node.args) if norm is not None]
            if len(norms) == 1:
                yield norms[0]


def normalise(module: nn.Module, seen: Tensor) -> None:
    """Give batch normalisations the statistics of a batch; nothing else is as in training."""
    layers = [layer for layer in module.modules() if isinstance(layer, _NORMS)]
    for layer in layers:
        layer.train()
        layer.momentum = None  # the mean over batches, of which there is one
        layer.reset_running_stats()
    with torch.no_grad():
        module(seen)
    module.eval()

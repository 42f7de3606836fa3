"""Foreign networks as ``heinfer.convert.polynomialize`` makes them, each tuned by a recipe of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.foreign.data import Task
from benchmarks.foreign.registry import Foreign
from benchmarks.foreign.training import accuracy, load
from heinfer.convert import PolynomialReport, Tuning, polynomialize


@dataclass(frozen=True)
class TuningRecipe:
    """How a foreign network is tuned; chosen on held-out examples.

    Attributes:
        degree, levels: as ``polynomialize`` takes them.
        augmented: whether inputs are changed as when the network was trained.
        noise: deviation of what is added to inputs otherwise: few examples then say more of what the teacher does.
    """

    tuning: Tuning
    degree: int | Mapping[str, int] = 2
    levels: int | None = None
    augmented: bool = False
    noise: float = 0.0


_COLOURS = Tuning(learning_rate=6e-3, batch=128, bfloat16=True, staged=0.2, labels=0.5)

RECIPES: Mapping[str, TuningRecipe] = {
    "lenet5": TuningRecipe(Tuning(epochs=12, learning_rate=4e-3, batch=128, staged=0.2, labels=0.3), augmented=True),
    "ecg": TuningRecipe(Tuning(epochs=30, learning_rate=3e-3, batch=64, labels=0.3, staged=0.3), degree=7),
    "tabular": TuningRecipe(Tuning(epochs=100, learning_rate=3e-3, batch=32, labels=0.3, staged=0.3), noise=0.3),
    "records": TuningRecipe(Tuning(epochs=20, learning_rate=1e-2, batch=64, labels=0.3, staged=0.3)),
    "resnet8": TuningRecipe(replace(_COLOURS, epochs=20), augmented=True),
    "vgg": TuningRecipe(replace(_COLOURS, epochs=24), augmented=True),
}


@dataclass(frozen=True)
class Tuned:
    """A network of polynomials, the report on held-out examples, accuracy on the test set before and now."""

    module: nn.Module = field(repr=False)
    report: PolynomialReport
    test_before: float
    test_now: float


def polynomialized(network: Foreign, folder: Path, tell: Callable[[str, int, int], None]) -> Tuned:
    """Make polynomials of a trained network in a folder; an interrupted tuning goes on where it was.

    DataError when it is not trained yet.
    """
    torch.manual_seed(0)
    task, original, recipe = network.task(), load(network.name, folder), RECIPES[network.name]
    data = torch.cat([task.train.inputs, task.held_out.inputs])
    labels = torch.cat([task.train.labels, task.held_out.labels])
    module, report = polynomialize(
        original,
        data,
        labels=labels,
        degree=recipe.degree,
        levels=recipe.levels,
        tuning=_tuning(network, task, recipe, folder),
        tell=tell,
    )
    return Tuned(module, report, accuracy(original, task.test), accuracy(module, task.test))


def _tuning(network: Foreign, task: Task, recipe: TuningRecipe, folder: Path) -> Tuning:
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    if recipe.augmented:
        augment = partial(_augment, network)
    elif recipe.noise:
        augment = partial(_noisy, recipe.noise)
    checkpoint = folder / f"{network.name}.tuning"
    return replace(recipe.tuning, held_out=len(task.held_out), augment=augment, checkpoint=checkpoint)


def _augment(network: Foreign, inputs: Tensor, generator: torch.Generator) -> Tensor:
    return network.recipe.augmentation(inputs, network.background, generator)


def _noisy(deviation: float, inputs: Tensor, generator: torch.Generator) -> Tensor:
    return inputs + deviation * torch.randn(inputs.shape, generator=generator)

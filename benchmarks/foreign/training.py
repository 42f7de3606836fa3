"""Train foreign networks; an interrupted training goes on where it was, a finished one is not repeated."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.foreign.data import Examples
from benchmarks.foreign.registry import Foreign, foreign
from heinfer.errors import DataError
from heinfer.zoo.checkpoint import Metadata, load_network, read_metadata, save_network, structure
from heinfer.zoo.fitting import Labelled, fit
from heinfer.zoo.training import default_out

_AT_ONCE = 500  # examples: bounds the memory of a pass over a data set


def default_folder() -> Path:
    """Where trained networks are kept when no folder is named: in the user's cache."""
    return default_out() / "foreign"


def train(network: Foreign, out: Path, *, seed: int = 0, epochs: int | None = None) -> Metadata:
    """Train a network into ``out``/NAME.safetensors, the held-out examples left out; return what the file says."""
    path, state = out / f"{network.name}.safetensors", out / f"{network.name}.partial"
    recipe, total = network.recipe, epochs or network.recipe.epochs
    found = _finished(path)
    if found and (found.seed, found.epochs, found.recipe) == (seed, total, str(recipe)):
        return found
    torch.manual_seed(seed)
    module, task = network.build(), network.task()
    data = Labelled(task.train.inputs, task.train.labels, background=network.background)
    watcher = _Lines(network.name, total, task.held_out)
    seconds = fit(module, data, recipe, seed=seed, epochs=total, state=state, watcher=watcher)
    held_out, test = accuracy(module, task.held_out), accuracy(module, task.test)
    sizes = len(task.train), str(recipe)
    about = Metadata(network.name, seed, total, *sizes, held_out, test, seconds, structure(module), {})
    save_network(path, module, about)
    state.unlink()
    return about


def load(name: str, folder: Path) -> nn.Module:
    """Return a trained network in evaluation mode; DataError when it is not there."""
    module = foreign(name).build()
    load_network(folder / f"{name}.safetensors", name, module)
    return module.eval()


def scores(module: nn.Module, inputs: Tensor) -> Tensor:
    """What a network says of inputs (n, ...), in evaluation mode: (n, classes)."""
    module.eval()
    with torch.no_grad():
        return torch.cat([module(part) for part in torch.split(inputs, _AT_ONCE)])


def accuracy(module: nn.Module, examples: Examples) -> float:
    """Share of the examples classified as labelled, in [0, 1]."""
    return (scores(module, examples.inputs).argmax(1) == examples.labels).double().mean().item()


class _Lines:
    """A line for every epoch: what a log is good for."""

    def __init__(self, name: str, epochs: int, held_out: Examples) -> None:
        self._name, self._epochs, self._held_out = name, epochs, held_out

    def on_batch(self, done: int, total: int, loss: float) -> None:
        """Nothing: a line each would be too many."""

    def on_epoch(self, epoch: int, module: nn.Module) -> None:
        """Print what ``epoch`` epochs reached."""
        share = accuracy(module, self._held_out)
        print(f"{self._name}  epoch {epoch}/{self._epochs}  held-out {share:.2%}", flush=True)


def _finished(path: Path) -> Metadata | None:
    try:
        return read_metadata(path)
    except DataError:
        return None

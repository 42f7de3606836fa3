"""Train the reference networks; one that is factorized from another by training that first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import nn

from heinfer.convert import circulant, factorize
from heinfer.errors import DataError, SettingError
from heinfer.nn import BlockCirculantConv2d, BlockCirculantLinear, FFConv2d
from heinfer.zoo.checkpoint import Metadata, load_network, read_metadata, save_network, structure
from heinfer.zoo.cifar import cifar10, cifar10_test
from heinfer.zoo.data import CIFAR10, MNIST, DataSet, Images, Split, mnist, mnist_test, normalise
from heinfer.zoo.fitting import Labelled, fit
from heinfer.zoo.measure import calibrate, evaluate
from heinfer.zoo.progress import TrainingBar
from heinfer.zoo.registry import Reference, lineage, reference

__all__ = ["TrainingResult", "calibrate", "default_out", "evaluate", "load", "train"]


_CIRCULANT = (BlockCirculantConv2d, BlockCirculantLinear)
_BACKGROUND = {MNIST: float(MNIST.normalise(np.zeros((1, 1), np.uint8)).item()), CIFAR10: 0.0}
"""What augmentation fills in: MNIST's black, the mean of CIFAR-10's pixels."""


DEVICES = "cpu", "cuda"


@dataclass(frozen=True)
class TrainingResult:
    """Where a trained network is, its accuracies as shares in [0, 1], and what it took.

    Attributes:
        path: of the file.
        held_out_accuracy: None when those images were trained on.
        test_accuracy: on the test images.
        seconds: spent on training, of the network it was made from as well.
    """

    path: Path
    held_out_accuracy: float | None
    test_accuracy: float
    seconds: float


def train(  # noqa: PLR0913 - one argument for each choice
    name: str,
    *,
    seed: int = 0,
    epochs: int | None = None,
    out: Path,
    data_dir: Path | None = None,
    threads: int | None = None,
    hold_out: bool = False,
    device: str = "cpu",
    brief: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train a reference network into ``out``/NAME.safetensors, with its :class:`~heinfer.zoo.checkpoint.Metadata`.

    A factorized or block-circulant network is made from its base (trained first, or taken from ``out`` when it was
    trained alike), by SVD or projection, and trained on. The same arguments give the same network, on one machine and
    thread count. An interrupted training goes on where it was, from ``out``/NAME.partial; a finished one is not
    repeated.

    Args:
        name: one of ``heinfer.zoo.NETWORKS``.
        seed: of the initial weights, the order of images and their augmentation; at least 0.
        epochs: of every stage; None for the recipes' own.
        out: folder of the results, made when it does not exist.
        data_dir: see :func:`heinfer.zoo.data.mnist` and :func:`heinfer.zoo.cifar.cifar10`.
        threads: that torch may use; None for its own choice.
        hold_out: keep the last 5,000 training images, on which choices are made, out and report accuracy on them;
            otherwise train on all.
        device: ``cpu`` or ``cuda``; everything random is drawn on the processor, so that both see the same images.
        brief: train a form of a network by its shorter recipe, which is there to compare ranks and block sizes.
        progress: show a progress bar on stderr.

    Raises:
        SettingError: an unknown name, a network without a recipe, or a number out of its range.
        DataError: no data set.
    """
    stages = lineage(name)
    if any(stage.recipe is None for stage in stages):
        raise SettingError(f"{name} has no recipe, only its structure is of interest: build it with its function")
    for setting, value, least in (("seed", seed, 0), ("epochs", epochs, 1), ("threads", threads, 1)):
        if value is not None and value < least:
            raise SettingError(f"{setting} must be at least {least}, got {value}")
    if brief:
        stages = (*stages[:-1], _shortened(stages[-1]))
    data, test = _images(stages[-1].data, data_dir)
    if device not in DEVICES or (device == "cuda" and not torch.cuda.is_available()):
        raise SettingError(f"device {device!r} is not here: choose one of {', '.join(DEVICES)} that PyTorch finds")
    images, held_out = (data.train, data.held_out) if hold_out else (data.whole, None)
    job = _Job(seed, epochs, out, device, progress, images, held_out, test)
    with _threads(threads), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        results = [_trained(job, stages[: last + 1]) for last in range(len(stages))]
    return replace(results[-1], seconds=sum(result.seconds for result in results))


def _images(data: DataSet, data_dir: Path | None) -> tuple[Split, Images]:
    """Training and test images of a data set."""
    if data == MNIST:
        return mnist(data_dir), mnist_test(data_dir)
    return cifar10(data_dir), cifar10_test(data_dir)


def default_out() -> Path:
    """Folder for trained networks when the user names none: in the user's cache."""
    return Path(pooch.os_cache("heinfer")) / "networks"


def load(name: str, path: Path) -> nn.Sequential:
    """Return a trained network from a file that ``train`` wrote, in evaluation mode.

    Raises:
        SettingError: an unknown name.
        DataError: the file is missing, damaged, or holds another network.
    """
    module = reference(name).build()
    load_network(path, name, module)
    return module.eval()


@dataclass(frozen=True, eq=False)
class _Job:
    """What every stage of one training needs."""

    seed: int
    epochs: int | None
    out: Path
    device: str
    progress: bool
    train: Images
    held_out: Images | None
    test: Images

    def path(self, name: str) -> Path:
        return self.out / f"{name}.safetensors"


def _shortened(network: Reference) -> Reference:
    if network.brief is None:
        raise SettingError(f"{network.name} has no shorter recipe: give a number of epochs")
    return replace(network, recipe=network.brief)


def _trained(job: _Job, stages: Sequence[Reference]) -> TrainingResult:
    """Train the last of some stages; that before is in ``job.out``. The seconds are its own."""
    network = stages[-1]
    name, recipe = network.name, network.recipe
    assert recipe is not None
    path, state = job.path(name), job.out / f"{name}.partial"
    epochs, recipes = job.epochs or recipe.epochs, ", ".join(f"{one.name}: {one.recipe}" for one in stages)
    found = _finished(path)
    if found and (
        (found.name, found.seed, found.epochs, found.images, found.recipe)
        == (name, job.seed, epochs, len(job.train), recipes)
    ):
        return TrainingResult(path, found.held_out_accuracy, found.test_accuracy, found.seconds)
    module = _start(job, network)
    images = torch.from_numpy(normalise(job.train.images))
    data = Labelled(images, torch.from_numpy(job.train.labels), background=_BACKGROUND[network.data])
    with TrainingBar(name, epochs, job.held_out, job.progress) as bar:
        seconds = fit(module, data, recipe, seed=job.seed, epochs=epochs, state=state, watcher=bar, device=job.device)
    held_out = evaluate(module, job.held_out.images, job.held_out.labels) if job.held_out else None
    test = evaluate(module, job.test.images, job.test.labels)
    ranges = calibrate(module, job.train.images)
    layers = structure(module.cpu())
    about = Metadata(
        name, job.seed, epochs, len(job.train), recipes, held_out, test, seconds, layers, ranges, job.device
    )
    save_network(path, module, about)
    state.unlink()
    return TrainingResult(path, held_out, test, seconds)


def _start(job: _Job, network: Reference) -> nn.Module:
    """Return the network as its training finds it: made from its trained base, or with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        module = network.build()
    if network.base is None:
        return module
    ranks = {path: part.rank for path, part in module.named_modules() if isinstance(part, FFConv2d)}
    blocks = {path: part.block for path, part in module.named_modules() if isinstance(part, _CIRCULANT)}
    return circulant(factorize(load(network.base, job.path(network.base)), rank=ranks), blocks)


def _finished(path: Path) -> Metadata | None:
    try:
        return read_metadata(path)
    except DataError:
        return None


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

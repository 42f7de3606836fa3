"""Train the reference networks: ``mnist-plain``, and ``mnist-ffconv`` by factorizing it and fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pooch
import torch
from torch import nn

from heinfer.convert import factorize
from heinfer.errors import DataError, SettingError
from heinfer.zoo import NETWORKS
from heinfer.zoo.checkpoint import Metadata, load_network, read_metadata, save_network, structure
from heinfer.zoo.data import DEVIATION, MEAN, Digits, mnist, mnist_test, normalise
from heinfer.zoo.fitting import Labelled, fit
from heinfer.zoo.measure import calibrate, evaluate
from heinfer.zoo.networks import RANK, mnist_ffconv, mnist_plain
from heinfer.zoo.progress import TrainingBar
from heinfer.zoo.recipes import FINE_TUNING, PLAIN, Recipe

__all__ = ["TrainingResult", "calibrate", "default_out", "evaluate", "load", "train"]

_PLAIN, _FFCONV = NETWORKS


@dataclass(frozen=True)
class TrainingResult:
    """Where the trained network is, its accuracies as shares in [0, 1], and the seconds spent on training."""

    path: Path
    held_out_accuracy: float
    test_accuracy: float
    seconds: float


def train(
    name: str,
    *,
    seed: int = 0,
    epochs: int | None = None,
    out: Path,
    data_dir: Path | None = None,
    threads: int | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a reference network into ``out``/NAME.safetensors, with its :class:`~heinfer.zoo.checkpoint.Metadata`.

    ``mnist-ffconv`` is ``mnist-plain`` (trained first, or taken from ``out`` when it was trained alike) factorized
    by SVD at rank 4 and trained on. The same arguments give the same network, on one machine and thread count.
    An interrupted training goes on where it was, from ``out``/NAME.partial; a finished one is not repeated.

    Args:
        name: one of ``heinfer.zoo.NETWORKS``.
        seed: of the initial weights, the order of images and their augmentation; at least 0.
        epochs: of every stage; None for the recipe's own.
        out: folder of the results, made when it does not exist.
        data_dir: see :func:`heinfer.zoo.data.mnist`.
        threads: that torch may use; None for its own choice.
        limit: train on this many images only.
        progress: show a progress bar on stderr.

    Raises:
        SettingError: an unknown name, or a number out of its range.
        DataError: no data set.
    """
    _known(name)
    for setting, value, least in (
        ("seed", seed, 0),
        ("epochs", epochs, 1),
        ("threads", threads, 1),
        ("limit", limit, 1),
    ):
        if value is not None and value < least:
            raise SettingError(f"{setting} must be at least {least}, got {value}")
    data = mnist(data_dir)
    job = _Job(seed, epochs, limit, out, progress, data.train[:limit], data.held_out, mnist_test(data_dir))
    with _threads(threads):
        return _plain(job) if name == _PLAIN else _ffconv(job)


def default_out() -> Path:
    """Folder for trained networks when the user names none: in the user's cache."""
    return Path(pooch.os_cache("heinfer")) / "networks"


def load(name: str, path: Path) -> nn.Sequential:
    """Return a trained network from a file that ``train`` wrote, in evaluation mode.

    Raises:
        SettingError: an unknown name.
        DataError: the file is missing, damaged, or holds another network.
    """
    _known(name)
    module = mnist_plain() if name == _PLAIN else mnist_ffconv()
    load_network(path, name, module)
    return module.eval()


@dataclass(frozen=True, eq=False)
class _Job:
    """What every stage of one training needs."""

    seed: int
    epochs: int | None
    limit: int | None
    out: Path
    progress: bool
    train: Digits
    held_out: Digits
    test: Digits


def _plain(job: _Job) -> TrainingResult:
    def start() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)
            return mnist_plain()

    return _stage(job, _PLAIN, PLAIN, start, str(PLAIN), 0.0)


def _ffconv(job: _Job) -> TrainingResult:
    base = _plain(job)

    def start() -> nn.Module:
        return factorize(load(_PLAIN, base.path), rank=RANK)

    return _stage(job, _FFCONV, FINE_TUNING, start, f"{PLAIN}, {FINE_TUNING}", base.seconds)


def _stage(
    job: _Job, name: str, recipe: Recipe, start: Callable[[], nn.Module], recipes: str, seconds: float
) -> TrainingResult:
    """Train what ``start`` gives; ``recipes`` and ``seconds`` tell of the earlier stages as well."""
    path, state = job.out / f"{name}.safetensors", job.out / f"{name}.partial"
    epochs = job.epochs or recipe.epochs
    found = _finished(path)
    if found and (found.name, found.seed, found.epochs, found.limit, found.recipe) == (
        name,
        job.seed,
        epochs,
        job.limit,
        recipes,
    ):
        return TrainingResult(path, found.held_out_accuracy, found.test_accuracy, found.seconds)
    module = start()
    images = torch.from_numpy(normalise(job.train.images))
    data = Labelled(images, torch.from_numpy(job.train.labels), background=-MEAN / DEVIATION)
    with TrainingBar(name, epochs, job.held_out, job.progress) as bar:
        seconds += fit(module, data, recipe, seed=job.seed, epochs=epochs, state=state, watcher=bar)
    held_out, test = (evaluate(module, part.images, part.labels) for part in (job.held_out, job.test))
    ranges = calibrate(module, job.train.images)
    about = Metadata(name, job.seed, epochs, job.limit, recipes, held_out, test, seconds, structure(module), ranges)
    save_network(path, module, about)
    state.unlink()
    return TrainingResult(path, held_out, test, seconds)


def _finished(path: Path) -> Metadata | None:
    try:
        return read_metadata(path)
    except DataError:
        return None


def _known(name: str) -> None:
    if name not in NETWORKS:
        raise SettingError(f"there is no network {name!r}: choose one of {', '.join(NETWORKS)}")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

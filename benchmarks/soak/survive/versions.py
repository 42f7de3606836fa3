"""A model small enough that thousands of predictions take minutes, in two versions that must not be mixed up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import heinfer
from heinfer.formats.bindings import manifest_binding
from heinfer.formats.bundle import Bundle
from heinfer.formats.manifest import Preprocessing
from heinfer_cli.comparison import Scores, cleartext_scores

NAME = "survivor"

_SIDE, _CLASSES = 8, 10
_LABELS = tuple("abcdefghij")
_PIXELS = (
    Preprocessing(divisor=255.0, mean=(0.5,), std=(0.5,), low=-1.0, high=1.0),
    Preprocessing(divisor=255.0, mean=(0.7,), std=(0.05,), low=-1.0, high=1.0),  # almost black and white
)
_ROLLED = 3
"""Classes by which the second version's weights are shifted; its labels are, by one."""

_DRAWN, _LEAST_IMAGES = 300, 50
_LEAST_MARGIN = 1 / 16
"""Between the two largest scores, in parts of the largest: far more than encryption adds."""


@dataclass(frozen=True, eq=False)
class Version:
    """A version of the model; `labels` are what it says of the images, in cleartext."""

    bundle: Bundle
    labels: tuple[str, ...]

    @property
    def digest(self) -> str:
        return manifest_binding(self.bundle.manifest.to_bytes()).hex()


def two_versions() -> tuple[tuple[Version, Version], NDArray[np.uint8]]:
    """Two versions with one key set, and images (n, 8, 8).

    Each image has another label when anything of one version (normalisation, weights, labels) meets the other's.
    """
    images = np.random.default_rng(0).integers(0, 256, (_DRAWN, _SIDE, _SIDE)).astype(np.uint8)
    bundles = (_compiled(0), _compiled(1))
    scores = {
        (pixels, weights): cleartext_scores(replace(bundles[weights], manifest=bundles[pixels].manifest), list(images))
        for pixels in (0, 1)
        for weights in (0, 1)
    }
    is_told = _is_told(scores, 0) & _is_told(scores, 1)
    assert is_told.sum() >= _LEAST_IMAGES
    first, second = (_version(bundles[own], scores[own, own][is_told]) for own in (0, 1))
    return (first, second), images[is_told]


def _is_told(scores: dict[tuple[int, int], Scores], own: int) -> NDArray[np.bool_]:
    """Images of which a version is sure, and which any mixture under its labels takes for something else."""
    ascending = np.sort(scores[own, own], axis=1)
    is_told: NDArray[np.bool_] = ascending[:, -1] - ascending[:, -2] > _LEAST_MARGIN * np.abs(ascending).max(axis=1)
    right = scores[own, own].argmax(axis=1)
    for mixture, found in scores.items():
        if mixture != (own, own):
            is_told &= found.argmax(axis=1) != right
    return is_told


def _version(bundle: Bundle, scores: Scores) -> Version:
    labels = bundle.manifest.output.labels
    return Version(bundle, tuple(labels[found] for found in scores.argmax(axis=1)))


def _compiled(number: int) -> Bundle:
    torch.manual_seed(0)
    layer = nn.Linear(_SIDE * _SIDE, _CLASSES).double()
    with torch.no_grad():
        layer.weight.copy_(layer.weight.roll(_ROLLED * number, 0))
        layer.bias.copy_(layer.bias.roll(_ROLLED * number, 0))
    # The same values for both: scales, and with them primes and keys, depend on them.
    values = np.random.default_rng(0).uniform(-1, 1, (64, 1, _SIDE, _SIDE))
    labels = _LABELS[number:] + _LABELS[:number]
    return heinfer.compile(
        nn.Sequential(nn.Flatten(), layer),
        values,
        name=NAME,
        preprocessing=_PIXELS[number],
        labels=labels,
        model_version=str(number + 1),
    ).bundle

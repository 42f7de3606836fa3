"""Compile a trained reference network into the bundle that ships with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import heinfer
from heinfer.compiler import CompiledModel
from heinfer.formats.manifest import Preprocessing
from heinfer.planner.objective import Limits, Wishes
from heinfer.zoo.checkpoint import Metadata, read_metadata
from heinfer.zoo.data import DEVIATION, MEAN, mnist, normalise
from heinfer.zoo.registry import reference
from heinfer.zoo.training import load

CALIBRATION_IMAGES = 500
"""Training images that ranges and scales are chosen on."""

WISHES = Wishes(limits=Limits(upload_bytes=300_000))
"""One ciphertext per image at N = 8192: the next plan saves a tenth of the time and uploads twice as much."""


def mnist_preprocessing() -> Preprocessing:
    """8-bit pixels to the normalised range on which the MNIST networks are trained."""
    low, high = (float(x) for x in normalise(np.array([[[0, 255]]], dtype=np.uint8)).reshape(-1))
    rounding = 1e-6  # normalise works in float32
    return Preprocessing(divisor=255.0, mean=(MEAN,), std=(DEVIATION,), low=low - rounding, high=high + rounding)


def compile_reference(
    name: str, checkpoint: Path, data_dir: Path | None = None, wishes: Wishes = WISHES
) -> CompiledModel:
    """Compile the trained network in a checkpoint, calibrated on training images.

    Raises:
        SettingError: an unknown name.
        DataError: a bad checkpoint, or no data set.
        CompileError: no plan.
    """
    module = load(name, checkpoint)
    about = read_metadata(checkpoint)
    images = mnist(data_dir).train.images[:CALIBRATION_IMAGES]
    return heinfer.compile(
        module,
        normalise(images).astype(np.float64),
        name=name,
        preprocessing=mnist_preprocessing(),
        labels=tuple("0123456789"),
        wishes=wishes,
        metadata={
            "made by": f"{_command(about)}, then heinfer compile {name}{_upload(wishes)}",
            "recipe": about.recipe,
            "images trained on": str(about.images),
            "test accuracy": f"{about.test_accuracy:.4f}",
        }
        | ({} if about.held_out_accuracy is None else {"held-out accuracy": f"{about.held_out_accuracy:.4f}"}),
    )


def _command(about: Metadata) -> str:
    """What trained the network."""
    recipe = reference(about.name).recipe
    epochs = "" if recipe and about.epochs == recipe.epochs else f" --epochs {about.epochs}"
    hold_out = "" if about.held_out_accuracy is None else " --hold-out"
    return f"heinfer train {about.name} --seed {about.seed}{epochs}{hold_out}"


def _upload(wishes: Wishes) -> str:
    most = wishes.limits.upload_bytes
    return "" if most == WISHES.limits.upload_bytes else f" --max-upload-bytes {most:.0f}"

"""Compile a trained reference network into the bundle that ships with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import heinfer
from heinfer.compiler.model import CompiledModel
from heinfer.formats.manifest import Preprocessing
from heinfer.planner.planner import SEARCH, Planner
from heinfer.planner.requirements import Limits, Requirements
from heinfer.zoo.checkpoint import Metadata, read_metadata
from heinfer.zoo.cifar import cifar10
from heinfer.zoo.data import CIFAR10, MNIST, DataSet, mnist
from heinfer.zoo.registry import reference
from heinfer.zoo.training import load

CALIBRATION_IMAGES = 500
"""Training images that ranges and scales are chosen on."""

UPLOAD_BYTES = {MNIST: 300_000, CIFAR10: 1_000_000}
"""One ciphertext per image: at N = 8192 for MNIST, where the next plan saves a tenth of the time and uploads twice as
much, and at 16384 for CIFAR-10."""
REQUIREMENTS = Requirements(limits=Limits(upload_bytes=UPLOAD_BYTES[MNIST]))
"""For a network of MNIST; :func:`requirements_for` any."""


def requirements_for(name: str) -> Requirements:
    """What is required of a reference network's plan when nothing else is said."""
    return Requirements(limits=Limits(upload_bytes=UPLOAD_BYTES[reference(name).data]))


def preprocessing(data: DataSet) -> Preprocessing:
    """8-bit pixels to the normalised range on which a data set's networks are trained."""
    ends = [data.normalise(np.full((1, *data.shape), pixel, np.uint8)) for pixel in (0, 255)]
    rounding = 1e-6  # normalise works in float32
    return Preprocessing(
        divisor=255.0,
        mean=data.mean,
        std=data.deviation,
        low=float(ends[0].min()) - rounding,
        high=float(ends[1].max()) + rounding,
    )


def calibration_inputs(name: str, data_dir: Path | None = None) -> NDArray[np.float64]:
    """The training images that a reference network is calibrated on, preprocessed; DataError without their data set."""
    data = reference(name).data
    images = (mnist if data == MNIST else cifar10)(data_dir).train.images[:CALIBRATION_IMAGES]
    return data.normalise(images).astype(np.float64)


def compile_reference(
    name: str,
    checkpoint: Path,
    data_dir: Path | None = None,
    requirements: Requirements | None = None,
    planner: Planner = SEARCH,
) -> CompiledModel:
    """Compile the trained network in a checkpoint, calibrated on training images; None for its own requirements.

    Raises:
        SettingError: an unknown name.
        DataError: a bad checkpoint, or no data set.
        CompileError: no plan.
    """
    requirements = requirements or requirements_for(name)
    module = load(name, checkpoint)
    about = read_metadata(checkpoint)
    data = reference(name).data
    return heinfer.compile(
        module,
        calibration_inputs(name, data_dir),
        name=name.replace("@", "-"),
        preprocessing=preprocessing(data),
        labels=data.labels,
        requirements=requirements,
        planner=planner,
        metadata={
            "made by": f"{training_command(about)}, then heinfer compile {name}{_upload(name, requirements)}",
            "recipe": about.recipe,
            "images trained on": str(about.images),
            "test accuracy": f"{about.test_accuracy:.4f}",
        }
        | ({} if about.held_out_accuracy is None else {"held-out accuracy": f"{about.held_out_accuracy:.4f}"}),
    )


def training_command(about: Metadata) -> str:
    """What trained the network."""
    of = reference(about.name)
    recipe = of.brief if of.brief and about.recipe.endswith(str(of.brief)) else of.recipe
    brief = " --brief" if recipe is of.brief and recipe else ""
    epochs = "" if recipe and about.epochs == recipe.epochs else f" --epochs {about.epochs}"
    device = "" if about.device == "cpu" else f" --device {about.device}"
    hold_out = "" if about.held_out_accuracy is None else " --hold-out"
    return f"heinfer train {about.name} --seed {about.seed}{epochs}{brief}{hold_out}{device}"


def _upload(name: str, requirements: Requirements) -> str:
    most = requirements.limits.upload_bytes
    return "" if most == requirements_for(name).limits.upload_bytes else f" --max-upload-bytes {most:.0f}"

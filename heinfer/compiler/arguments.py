"""The arguments of compile(), looked at before anything is planned, which may take minutes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from heinfer.errors import CompileError, ShapeError
from heinfer.formats.manifest import MAX_LABEL, NAME, VERSION, Preprocessing
from heinfer.network.ir import Network
from heinfer.planner.planner import Planner
from heinfer.planner.requirements import Requirements

Array = NDArray[np.float64]

TOLERANCE = 1e-5
"""Share of the declared range by which calibration may leave it: what is normalised in float32 is that inexact."""


@dataclass(frozen=True)
class Description:
    """What compile() is told besides the network and its inputs; its arguments say what they are."""

    name: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    model_version: str
    metadata: Mapping[str, str] | None
    requirements: Requirements
    planner: Planner

    def require(self, network: Network, inputs: Array) -> None:
        """Raise CompileError, or ShapeError, for the first that is none, or does not fit the network and its inputs."""
        _require_requirements(self.requirements)
        _require_words(self.name, self.model_version, self.labels, self.metadata)
        _require_preprocessing(self.preprocessing, network.input_shape)
        if inputs.shape[1:] != network.input_shape:
            raise ShapeError(f"calibration inputs have shape (batch, *{network.input_shape}), not {inputs.shape}")
        _require_finite(inputs)
        _require_range(inputs, self.preprocessing)
        scores = prod(network.output_shape)
        if self.labels and len(self.labels) != scores:
            raise CompileError(
                f"the network gives {scores} scores: give as many labels or none, not {len(self.labels)}"
            )


def as_inputs(calibration: object) -> Array:
    """Calibration inputs (batch, *input_shape) as float64.

    Raises:
        CompileError: when they are no array of numbers.
        ShapeError: when there are none, or they have no batch axis.
    """
    if not hasattr(calibration, "__array__"):
        raise CompileError(
            f"calibration inputs are one array (batch, *input_shape), not a {type(calibration).__name__}: "
            "np.stack makes one of a list of arrays"
        )
    try:
        inputs = np.asarray(calibration, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CompileError(
            f"calibration inputs cannot be read as an array of numbers ({error}): "
            "of a tensor x give x.detach().cpu().numpy()"
        ) from error
    if inputs.ndim < 2 or not inputs.size:
        raise ShapeError(
            f"calibration inputs have shape (batch, *input_shape), (N, C, H, W) if they are images, not {inputs.shape}"
        )
    return inputs


def _require_requirements(requirements: object) -> None:
    if not isinstance(requirements, Requirements):
        raise CompileError(
            f"requirements must be heinfer.planner.requirements.Requirements, such as "
            f"Requirements(limits=Limits(key_bytes=20e6)), not a {type(requirements).__name__}"
        )


def _require_preprocessing(preprocessing: object, input_shape: tuple[int, ...]) -> None:
    if not isinstance(preprocessing, Preprocessing):
        raise CompileError(
            "preprocessing must be heinfer.formats.manifest.Preprocessing(divisor=..., mean=..., std=..., low=..., "
            f"high=...), not a {type(preprocessing).__name__}"
        )
    channels = input_shape[0] if len(input_shape) == 3 else 1
    if len(preprocessing.mean) != channels:
        raise CompileError(
            f"mean and std of the preprocessing must have one entry a channel, {channels} for inputs of shape "
            f"{input_shape}, not {len(preprocessing.mean)}"
        )


def _require_words(name: object, model_version: object, labels: object, metadata: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise CompileError(
            f"name must be 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first, not {name!r}: "
            "it stands in the service's addresses"
        )
    if not isinstance(model_version, str) or not re.fullmatch(VERSION, model_version):
        raise CompileError(
            "model_version must be a string of 1 to 64 letters, digits, '.', '_', '+' and '-', a letter or digit "
            f"first, not {model_version!r}"
        )
    if not isinstance(labels, tuple):
        raise CompileError(f"labels must be a tuple of strings, such as ('cat', 'dog'), not a {type(labels).__name__}")
    for label in labels:
        if not isinstance(label, str) or len(label) > MAX_LABEL or not label.isprintable():
            raise CompileError(
                f"labels must be strings of at most {MAX_LABEL} characters without control characters; "
                f"{label!r} is none"
            )
    told = metadata or {}
    if not isinstance(told, Mapping) or not all(isinstance(text, str) for entry in told.items() for text in entry):
        raise CompileError("metadata must be a mapping from strings to strings")


def _require_finite(calibration: Array) -> None:
    bad = np.flatnonzero(~np.isfinite(calibration).all(axis=tuple(range(1, calibration.ndim))))
    if bad.size:
        raise CompileError(
            f"{bad.size} of {len(calibration)} calibration inputs hold NaN or infinity, the first of them "
            f"calibration[{bad[0]}]: repair them or leave them out"
        )


def _require_range(calibration: Array, preprocessing: Preprocessing) -> None:
    low, high = float(calibration.min()), float(calibration.max())
    size = preprocessing.high - preprocessing.low
    beyond = max(preprocessing.low - low, high - preprocessing.high)
    if beyond <= TOLERANCE * size:
        return
    reach = (
        f"calibration inputs reach from {low:.9g} to {high:.9g}, the declared input range is "
        f"{preprocessing.low:.9g} to {preprocessing.high:.9g}: "
    )
    if beyond > size:
        raise CompileError(
            f"{reach}calibration inputs must be preprocessed as Preprocessing says, "
            "clip((pixel / divisor - mean) / std, low, high), as clients do it"
        )
    raise CompileError(f"{reach}clients would clip them; widen the range, or preprocess them as Preprocessing says")

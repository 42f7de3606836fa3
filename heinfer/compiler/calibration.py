"""Calibration inputs as users give them: one array, or one for each input by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.errors import CompileError, ShapeError
from heinfer.formats.ends_part import MOST_PARTS
from heinfer.formats.keys_part import PART_NAME
from heinfer.formats.preprocessing import Preprocessing
from heinfer.layout.parts import TensorPart, parts_of

Array = NDArray[np.float64]
Given: TypeAlias = Array | Mapping[str, Array]

TOLERANCE = 1e-5
"""Share of the declared range by which calibration may leave it: what is normalised in float32 is that inexact."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs of a network.

    Attributes:
        parts: of each; one that is alone keeps its shape.
        values: float64 (batch, *shape), of several parts (batch, n): flattened and concatenated.
    """

    parts: tuple[TensorPart, ...]
    values: Array

    __repr__ = brief_repr

    def of(self, part: TensorPart) -> Array:
        """(batch, *shape) of a part."""
        return self.values if len(self.parts) == 1 else part.of(self.values)


def as_inputs(given: object, alone: str = "image") -> Inputs:
    """Inputs (batch, *input_shape) as float64, or a mapping of names to such.

    Args:
        given: by the user.
        alone: name of an input that is given none.

    Raises:
        CompileError: when they are no array of numbers.
        ShapeError: when there are none, they have no batch axis, or those of two names are not as many.
    """
    if not isinstance(given, Mapping):
        values = _as_array(given, "calibration inputs")
        return Inputs((TensorPart(alone, values.shape[1:]),), values)
    if not 1 <= len(given) <= MOST_PARTS:
        raise CompileError(f"calibration inputs of 1 to {MOST_PARTS} names can be given, not of {len(given)}")
    for name in given:
        require_part_name(name, "input")
    arrays = {name: _as_array(array, f"calibration inputs {name!r}") for name, array in given.items()}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise ShapeError(f"calibration inputs belong together, the first of each name, and so on: there are {told}")
    parts = parts_of((name, array.shape[1:]) for name, array in arrays.items())
    return Inputs(parts, concatenated(list(arrays.values())))


def require_part_name(name: object, what: str) -> None:
    """Raise CompileError when it is no name of an input or output."""
    if not isinstance(name, str) or not re.fullmatch(PART_NAME, name):
        raise CompileError(
            f"the name of an {what} must be 1 to 32 of a-z, 0-9, '_' and '-', a letter first, not {name!r}"
        )


def concatenated(arrays: list[Array]) -> Array:
    """(batch, *shape) of every part as the network takes them: an array alone, or (batch, n)."""
    return arrays[0] if len(arrays) == 1 else np.concatenate([x.reshape(len(x), -1) for x in arrays], axis=1)


def _as_array(calibration: object, what: str) -> Array:
    if not hasattr(calibration, "__array__"):
        raise CompileError(
            f"{what} are one array (batch, *input_shape), not a {type(calibration).__name__}: "
            "np.stack makes one of a list of arrays"
        )
    try:
        inputs = np.asarray(calibration, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CompileError(
            f"{what} cannot be read as an array of numbers ({error}): of a tensor x give x.detach().cpu().numpy()"
        ) from error
    if inputs.ndim < 2 or not inputs.size:
        raise ShapeError(
            f"{what} have shape (batch, *input_shape), (N, C, H, W) if they are images, not {inputs.shape}"
        )
    return inputs


def require_finite(inputs: Array, whose: str) -> None:
    """Raise CompileError for inputs (batch, *shape) of which some hold NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(inputs).all(axis=tuple(range(1, inputs.ndim))))
    if bad.size:
        raise CompileError(
            f"{bad.size} of {len(inputs)} {whose} hold NaN or infinity, the first of them "
            f"calibration[{bad[0]}]: repair them or leave them out"
        )


def require_range(inputs: Array, preprocessing: Preprocessing, whose: str) -> None:
    """Raise CompileError for inputs (batch, *shape) of which some are beyond what the preprocessing lets through."""
    spread = preprocessing.over(inputs.shape[1:])
    low, high = spread.low, spread.high
    if low.ndim or high.ndim:  # look at the element that is furthest beyond
        low, high = (np.broadcast_to(x, inputs.shape[1:]) for x in (low, high))
        beyond = np.maximum(low - inputs.min(axis=0), inputs.max(axis=0) - high) / (high - low)
        at = int(beyond.argmax())
        inputs, low, high = inputs.reshape(len(inputs), -1)[:, at], low.reshape(-1)[at], high.reshape(-1)[at]
        element = [int(axis) for axis in np.unravel_index(at, beyond.shape)]
        named = repr(preprocessing.features[at]) if preprocessing.features else f"element {element}"
        whose = f"{whose}, {named},"
    _require_between(float(inputs.min()), float(inputs.max()), float(low), float(high), whose)


def _require_between(least: float, most: float, low: float, high: float, whose: str) -> None:
    size = high - low
    beyond = max(low - least, most - high)
    if beyond <= TOLERANCE * size:
        return
    reach = f"{whose} reach from {least:.9g} to {most:.9g}, the declared input range is {low:.9g} to {high:.9g}: "
    if beyond > size:
        raise CompileError(
            f"{reach}calibration inputs must be preprocessed as Preprocessing says, "
            "clip((pixel / divisor - mean) / std, low, high), as clients do it"
        )
    raise CompileError(f"{reach}clients would clip them; widen the range, or preprocess them as Preprocessing says")

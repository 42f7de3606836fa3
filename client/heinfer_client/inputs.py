"""What a caller gives for one prediction: an image, values, or a mapping of the names of a model's inputs to such."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from heinfer.errors import ImageError, SettingError
from heinfer.formats.manifest import Manifest
from heinfer_client.arrays import Array
from heinfer_client.images import Image, read_image
from heinfer_client.images import kept as kept_image
from heinfer_client.values import Named, Record, listed

Input: TypeAlias = Image | Named
"""A NumPy array or PIL image; or what has names: of a model's features, or of its inputs."""


def kept(given: Input) -> Input:
    """What was given as it is now, whatever becomes of the memory or file that it is in."""
    if not isinstance(given, Named) or hasattr(given, "__array_interface__"):
        return kept_image(given)  # type: ignore[arg-type]  # a wrong thing is refused when it is read
    if type(given).__name__ == "DataFrame":
        return given  # refused when it is read
    record = Record.of(given)
    return Record(record.names, {name: kept(own) for name, own in record.values.items()})


def read_input(given: Input, manifest: Manifest, maximum: int | None = None) -> Array:
    """The network's input from what was given: of the only input's shape, or (n,) of several.

    Args:
        given: an image or values as the only input wants it, or a mapping of the names of all inputs to such.
        manifest: of the model.
        maximum: the integer that is white, in each image.

    Raises:
        ImageError: when it does not fit the model; it names the input where there are several.
        SettingError: when maximum is malformed, or no input is an image.
    """
    parts = manifest.input_parts
    if len(parts) == 1:
        return _read(_only(given, manifest), manifest, 0, maximum)
    if not isinstance(given, Named) or hasattr(given, "__array_interface__"):
        raise ImageError(
            f"a mapping of the model's inputs {listed([part.name for part in parts])} is expected, got "
            f"{type(given).__name__}",
            f"give {{{', '.join(f'{part.name!r}: ...' for part in parts)}}}",
        )
    record, expected = Record.of(given), [part.name for part in parts]
    if wrong := record.misfits(expected):
        raise ImageError(f"the model's inputs {listed(expected)} are expected, {'; '.join(wrong)}")
    if maximum is not None and all(part.preprocessing.kind == "values" for part in manifest.inputs):
        raise SettingError("maximum= says which number is white in an image; this model takes values: leave it out")
    read = []
    for number, part in enumerate(manifest.inputs):
        white = maximum if part.preprocessing.kind == "image" else None
        try:
            read.append(_read(record[part.name], manifest, number, white).reshape(-1))
        except ImageError as error:
            raise ImageError(f"{part.name}: {error.cause}", error.way_out) from error
    return np.concatenate(read)


def _read(given: object, manifest: Manifest, number: int, maximum: int | None) -> Array:
    return read_image(given, manifest.input_parts[number].shape, manifest.inputs[number].preprocessing, maximum)


def _only(given: Input, manifest: Manifest) -> object:
    """What is given for the only input, which may stand under its name."""
    part = manifest.input
    if (
        isinstance(given, Record)
        and given.names == (part.name,)
        and (part.preprocessing.features or ()) != (part.name,)
    ):
        return given[part.name]
    return given

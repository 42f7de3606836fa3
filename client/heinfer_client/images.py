"""Images as users have them, to the network's input as the manifest wants it.

What an image means is decided here and in what this imports, by its type alone: no number is scaled by those beside it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from PIL import Image as Pictures

from heinfer.errors import ImageError, SettingError
from heinfer.formats.manifest import Preprocessing
from heinfer_client.arrays import Array, array_of, fits, fractions, shapes, way_to_many
from heinfer_client.pictures import read_picture
from heinfer_client.pil_images import kept as kept_picture
from heinfer_client.values import Record, require_declared, values_of

_WHITE = 255  # of the pixels that Preprocessing speaks of
_MAX_MAXIMUM = np.iinfo(np.uint64).max


class Image(Protocol):
    """A NumPy array or a PIL image: what both have, and a list of them has not."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


def kept(image: Image) -> Image:
    """The image as it is now, whatever becomes of the memory or file that it is in: it may be read later, and again."""
    if isinstance(image, np.ndarray):
        return image.copy()
    return kept_picture(image) if isinstance(image, Pictures.Image) else image


def read_image(
    image: object, shape: tuple[int, ...], preprocessing: Preprocessing, maximum: int | None = None
) -> Array:
    """Check an image, normalise it and clip it to the declared range.

    Args:
        image: NumPy array of the input's shape (C, H, W), or (H, W) for one channel, uint8 (0 to 255), float (0 to 1)
            or, with maximum, another integer; or a PIL image. Of a model of values: an array of the input's shape.
        shape: of one input.
        preprocessing: says what the input is.
        maximum: the integer that is white.

    Returns:
        float64 of the input's shape.

    Raises:
        ImageError: for another type, shape or dtype, a mask, a value out of range, NaN, or what is not certain.
        SettingError: when maximum is no integer above 0, or there is no white.
    """
    if maximum is not None:
        maximum = _checked(maximum, preprocessing)
    told = preprocessing.over(shape)
    with np.errstate(over="ignore"):  # what becomes infinite is clipped
        if preprocessing.kind == "values":
            numbers = values_of(image, shape, preprocessing) / preprocessing.divisor
            require_declared((numbers - told.mean) / told.std, preprocessing)
        else:
            numbers = _fractions(image, shape, preprocessing, maximum) * (_WHITE / preprocessing.divisor)
        inputs: Array = np.clip((numbers - told.mean) / told.std, told.low, told.high)
    return inputs


def _checked(maximum: object, preprocessing: Preprocessing) -> int:
    if preprocessing.kind == "values":
        raise SettingError("maximum= says which number is white in an image; this model takes values: leave it out")
    if not isinstance(maximum, int | np.integer) or isinstance(maximum, bool) or not 0 < maximum <= _MAX_MAXIMUM:
        raise SettingError(
            f"maximum must be an integer above 0, such as 65535 for pixels of 16 bits; {maximum!r} is not"
        )
    return int(maximum)


def _fractions(image: object, shape: tuple[int, ...], preprocessing: Preprocessing, maximum: int | None) -> Array:
    """An image's pixels in 0..1, of the input's shape."""
    if isinstance(image, Pictures.Image):
        return read_picture(image, shape, preprocessing.ground, maximum)
    if isinstance(image, Record):
        raise ImageError("a NumPy array or a PIL image is expected, got names")
    pixels = array_of(image, "a NumPy array or a PIL image")
    if not fits(pixels.shape, shape):
        raise ImageError(
            f"an image of shape {shapes(shape)} is expected, got {pixels.shape}", _way_to_shape(pixels.shape, shape)
        )
    return fractions(pixels, maximum).reshape(shape)


def _way_to_shape(given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What makes an image of the right shape from one of a wrong shape; empty if unknown."""
    if many := way_to_many(given, shape):
        return many
    if len(shape) != 3:
        return ""
    if given == (*shape[1:], shape[0]):
        return "use image.transpose(2, 0, 1)"
    if len(given) == 3 and {given[0], given[-1]} & {2, 4} and shape[1:] in (given[:2], given[1:]):
        return "composite it on what is behind its transparent pixels, and leave the channel of transparency out"
    if given == (*shape[1:], 3):
        return "use image[..., 0] if all three channels are equal"
    if given == shape[1:]:
        return f"use numpy.stack([image] * {shape[0]}) if it is grey"
    return ""

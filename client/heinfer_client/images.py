"""Images as users have them, to the network's input as the manifest wants it."""

from __future__ import annotations

import sys
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heinfer.errors import ImageError
from heinfer.formats.manifest import Manifest


class Image(Protocol):
    """A NumPy array or a PIL image: what both have, and a list of them has not."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


_PIL_MODES = {1: "L", 3: "RGB"}


def read_image(image: object, manifest: Manifest) -> NDArray[np.float64]:
    """Check an image, normalise it and clip it to the declared range.

    Args:
        image: NumPy array of the input's shape (C, H, W), or (H, W) for one channel, uint8 or float in [0, 1]; or a
            PIL image of mode L (one channel) or RGB (three).
        manifest: says what an image of the input is.

    Returns:
        float64 of the input's shape.

    Raises:
        ImageError: for another type, shape or dtype, a mask, a value out of range, or NaN.
    """
    shape, preprocessing = manifest.input_shape, manifest.input.preprocessing
    pixels = _pixels(image, shape)
    if not _fits(pixels.shape, shape):
        hint = _way_to_shape(pixels.shape, shape)
        raise ImageError(f"an image of shape {_shapes(shape)} is expected, got {pixels.shape}{hint}")
    fractions = _fractions(pixels, preprocessing.divisor).reshape(shape)
    channels = (-1, 1, 1) if len(shape) == 3 else (-1,)
    mean = np.array(preprocessing.mean).reshape(channels)
    std = np.array(preprocessing.std).reshape(channels)
    values: NDArray[np.float64] = np.clip((fractions - mean) / std, preprocessing.low, preprocessing.high)
    return values


def _pixels(image: object, shape: tuple[int, ...]) -> NDArray[np.generic]:
    if isinstance(image, np.ma.MaskedArray):
        raise ImageError("an array without a mask is expected: say what masked pixels are, as image.filled(0) does")
    if isinstance(image, np.ndarray):
        return image
    pil = sys.modules.get("PIL.Image")  # whoever holds a PIL image has imported PIL: this package need not
    if pil is None or not isinstance(image, pil.Image):
        kind = type(image).__name__
        hint = ": use image.numpy()" if kind == "Tensor" else ""  # of PyTorch, which this package need not have
        raise ImageError(f"a NumPy array or a PIL image is expected, got {kind}{hint}")
    channels = shape[0] if len(shape) == 3 else 1
    mode = _PIL_MODES.get(channels)
    if image.mode != mode:
        raise ImageError(f"a PIL image of mode {mode} is expected, got {image.mode}: use image.convert({mode!r})")
    pixels: NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
    return pixels if channels == 1 else pixels.transpose(2, 0, 1)


def _fractions(pixels: NDArray[np.generic], divisor: float) -> NDArray[np.float64]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float64) / divisor
    if pixels.dtype.kind != "f":
        hint = ": use image.astype(np.uint8) if they are 0..255" if pixels.dtype.kind in "iu" else ""
        raise ImageError(f"pixels of dtype uint8 (0..255) or float (0..1) are expected, got {pixels.dtype}{hint}")
    fractions = pixels.astype(np.float64)
    if not np.isfinite(fractions).all():
        raise ImageError("finite pixels are expected, got NaN or infinity")
    if fractions.min() < 0 or fractions.max() > 1:
        raise ImageError(
            f"float pixels in 0..1 are expected, got {fractions.min():.4g}..{fractions.max():.4g}: "
            "scale them, or give uint8; the model's own normalisation is applied here"
        )
    return fractions


def _fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return given == shape or (shape[0] == 1 and given == shape[1:])


def _way_to_shape(given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What makes an image of the right shape from one of a wrong shape, as the end of a message; empty if unknown."""
    if len(shape) == 3 and given == (*shape[1:], shape[0]):
        return ": use image.transpose(2, 0, 1)"
    if _fits(given[1:], shape):
        return ": encrypt_and_predict_many takes several images"
    return ""


def _shapes(shape: tuple[int, ...]) -> str:
    return f"{shape} or {shape[1:]}" if shape[0] == 1 and len(shape) > 1 else str(shape)

"""NumPy arrays as users have them, to numbers in float64: what each dtype means, and nothing by what is in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heinfer.errors import ImageError

Array = NDArray[np.float64]


_WAYS_TO_ARRAYS = {"Tensor": "image.numpy()", "DataFrame": "image.to_numpy()"}  # this package needs not have either


def array_of(given: object, expected: str) -> NDArray[np.generic]:
    """An array that was given; ImageError for another thing, which `expected` names what to give instead of."""
    if isinstance(given, np.ma.MaskedArray):
        raise ImageError("an array without a mask is expected", "say what masked pixels are, as image.filled(0) does")
    if not isinstance(given, np.ndarray):
        kind = type(given).__name__
        way = _WAYS_TO_ARRAYS.get(kind)
        raise ImageError(f"{expected} is expected, got {kind}", f"use {way}" if way else "")
    return np.asarray(given)  # a matrix, for one, would not be reshaped


def fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array may be given for an input: it has the shape, or that without a first axis of one."""
    return given == shape or (shape[0] == 1 and given == shape[1:])


def way_to_many(given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What to do where several inputs were given for one; empty where that is not the case."""
    return "encrypt_and_predict_many takes several images" if given and fits(given[1:], shape) else ""


def fractions(pixels: NDArray[np.generic], maximum: int | None) -> Array:
    """Pixels in 0..1: floats are that already, uint8 is 0..255, other integers need to be told their maximum.

    Raises:
        ImageError: for another dtype, a pixel out of range, or NaN.
    """
    kind = pixels.dtype.kind
    if kind == "f":
        return _of_floats(pixels, maximum)
    if kind not in "iub":
        raise ImageError(f"pixels of dtype uint8 (0..255) or float (0..1) are expected, got {pixels.dtype}")
    if maximum is None and pixels.dtype != np.uint8:
        white = {"b": 1, "u": np.iinfo(np.uint16).max}.get(kind, 255)
        raise ImageError(
            f"pixels of dtype uint8 (0..255) or float (0..1) are expected, got {pixels.dtype}",
            f"say which number is white, such as maximum={white}",
        )
    return of_integers(pixels, 255 if maximum is None else maximum)


def of_integers(pixels: NDArray[np.generic], white: int) -> Array:
    """Integers in 0..white as fractions of white; ImageError when one is beyond."""
    least, most = int(pixels.min()), int(pixels.max())  # Python's, that no dtype bounds
    if least < 0 or most > white:
        raise ImageError(f"pixels in 0..{white} are expected, got {least}..{most}", "say which number is white")
    return pixels.astype(np.float64) / white


def finite(numbers: NDArray[np.generic], what: str) -> Array:
    """Any numbers as float64; ImageError for another dtype, for NaN and for infinity."""
    if numbers.dtype.kind not in "fiu":
        raise ImageError(f"{what} of an integer or float dtype are expected, got {numbers.dtype}")
    with np.errstate(over="ignore"):  # what float64 does not hold is infinite, and refused
        doubles = numbers.astype(np.float64)
    if not np.isfinite(doubles).all():
        raise ImageError(f"finite {what} are expected, got NaN or infinity")
    return doubles


def shapes(shape: tuple[int, ...]) -> str:
    """The shapes that an array for an input may have."""
    return f"{shape} or {shape[1:]}" if shape[0] == 1 and len(shape) > 1 else str(shape)


def _of_floats(pixels: NDArray[np.generic], maximum: int | None) -> Array:
    if maximum is not None:
        raise ImageError("maximum= is for pixels that are integers, floats are in 0..1", "leave maximum= out")
    doubles = finite(pixels, "pixels")
    least, most = doubles.min(), doubles.max()
    if least < 0 or most > 1:
        raise ImageError(
            f"float pixels in 0..1 are expected, got {least:.4g}..{most:.4g}",
            "divide them by the number that is white; the model's own normalisation is applied here",
        )
    return doubles

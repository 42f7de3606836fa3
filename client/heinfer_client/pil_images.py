"""What a PIL image means: each mode's pixels as fractions of white and of opacity, the right way up.

Only what is certain is read; PIL converts some modes, and drops some of what a file says, without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from heinfer.errors import ImageError
from heinfer.system import Renewed
from heinfer_client.arrays import Array, fractions, of_integers

_AS_IT_IS = ("L", "LA", "RGB", "RGBA", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
_READ_AS = dict(zip(_AS_IT_IS, _AS_IT_IS, strict=True)) | {
    "1": "L",
    "P": "RGBA",
    "PA": "RGBA",
    "La": "LA",
    "RGBa": "RGBA",
}
"""Modes, each with that to which PIL converts it without a choice."""

_SIXTEEN_BITS = {
    "I": ("PNG", "PPM"),  # PIL's versions differ in what they call a PNG; what is in a PPM it scales
    "I;16": ("PNG", "TIFF", "JPEG2000"),
}
"""Formats of files in which 65535 is white."""

_GREY_STEPS = (85, 17)
"""By these PIL multiplies the greys of PNG files of 2 and of 4 bits, but not the one that is transparent."""

_BITS, _PHOTOMETRIC, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 338, 339  # tags of TIFF
_WHITE_IS_ZERO, _UNSPECIFIED, _SIGNED = 0, 0, (2,)


@dataclass(frozen=True)
class Picture:
    """Fractions of white (channels, H, W), of one channel or three, and of opacity (H, W)."""

    colour: Array
    alpha: Array

    @property
    def is_opaque(self) -> bool:
        """Whether nothing of what is behind it shows."""
        return bool((self.alpha == 1).all())

    def on(self, ground: tuple[float, ...]) -> Array:
        """Composited on one fraction a channel."""
        behind: Array = np.array(ground)[:, None, None]
        return self.alpha * self.colour + (1 - self.alpha) * behind


class _Reading(Renewed):
    """A lock, held while PIL reads: a file that two threads load at once is decoded twice into the same memory."""

    def begin(self) -> None:
        self.lock = Lock()


_READING = _Reading()


def kept(image: Image.Image) -> Image.Image:
    """The image as it is now: its file may be closed, and a canvas painted anew, before it is read."""
    with _READING.lock, suppress(Exception):  # what cannot be read is told when it is
        image.load()
        return image if isinstance(image, ImageFile.ImageFile) else image.copy()
    return image


def decoded(image: Image.Image, maximum: int | None) -> Picture:
    """A picture of one frame, upright by its EXIF orientation; `maximum` is white, by default what the mode says.

    Raises:
        ImageError: for a mode, frames or pixels whose meaning is not certain, or a file that PIL cannot read.
    """
    with _READING.lock:
        return _decoded(image, maximum)


def _decoded(image: Image.Image, maximum: int | None) -> Picture:
    mode = _READ_AS.get(image.mode)
    if mode is None:
        raise ImageError(f"a PIL image of mode L or RGB is expected, got {image.mode}", "use image.convert('RGB')")
    try:
        frames = getattr(image, "n_frames", 1)
        upright = ImageOps.exif_transpose(image)
        converted = upright if upright.mode == mode else upright.convert(mode)
    except Exception as error:  # PIL's readers raise whatever a damaged or closed file brings them to
        raise ImageError(f"the image cannot be read: {error}", "give one that is whole and open") from error
    if frames != 1:
        raise ImageError(f"an image of one frame is expected, got {frames}", "use image.copy() after image.seek(0)")
    _require_plain_tiff(image)
    _require_palette(upright)
    pixels = np.atleast_3d(np.asarray(converted))
    if mode in ("LA", "RGBA"):
        pixels, alpha = pixels[..., :-1], of_integers(pixels[..., -1], 255)
    else:
        key = upright.info.get("transparency")
        if image.mode == "1" and key:
            key = 255  # PIL's versions differ in what they call it
        alpha = np.where(_is_transparent(pixels, key), 0.0, 1.0)
    colour = fractions(pixels, maximum) if mode == "F" else of_integers(pixels, _white(image, mode, maximum))
    return Picture(colour.transpose(2, 0, 1), alpha)


def _white(image: Image.Image, mode: str, maximum: int | None) -> int:
    if maximum is not None and maximum > 255 and mode in ("L", "LA", "RGB", "RGBA"):
        raise ImageError(f"white is 255 in a PIL image of mode {image.mode}, not {maximum}", "give it without maximum=")
    if maximum is not None:
        return maximum
    if mode not in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        return 255
    if image.format not in _SIXTEEN_BITS[mode[:4]]:
        raise ImageError(f"which number is white in a PIL image of mode {image.mode} is not known", "say maximum=65535")
    return 4095 if _tiff_tags(image).get(_BITS) == (12,) else 65535


def _tiff_tags(image: Image.Image) -> dict[int, object]:
    return dict(getattr(image, "tag_v2", {}))


def _require_plain_tiff(image: Image.Image) -> None:
    """Refuse what PIL takes from a TIFF file for other than it is, or leaves out."""
    tags = _tiff_tags(image)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode not in ("1", "L"):  # of which PIL turns these two round
        raise ImageError("a TIFF image whose black is zero is expected, in this one white is", "save it so")
    if tags.get(_SAMPLE_FORMAT) == _SIGNED and image.mode == "L":
        raise ImageError("a TIFF image of unsigned numbers is expected, this one's have signs", "save it without")
    extra = tags.get(_EXTRA_SAMPLES, ())
    if isinstance(extra, tuple) and extra[:1] == (_UNSPECIFIED,):
        raise ImageError("whether this TIFF image's last channel is its transparency is not known", "save it without")


def _require_palette(image: Image.Image) -> None:
    """Refuse colours that are not in the palette, which PIL paints black."""
    if image.mode not in ("P", "PA"):
        return
    colours = len(image.getpalette() or ()) // 3
    if int(np.atleast_3d(np.asarray(image))[..., 0].max(initial=0)) >= colours:
        raise ImageError(f"a pixel is of a colour beyond the {colours} in the image's palette", "save it anew")


def _is_transparent(pixels: NDArray[np.generic], key: object) -> NDArray[np.bool_]:
    """Which pixels (H, W, channels) have the one colour that a PNG or GIF file makes transparent.

    Raises:
        ImageError: when pixels may be of that colour that had another depth in the file.
    """
    if key is None:
        return np.zeros(pixels.shape[:2], bool)
    colour = np.atleast_1d(np.array(key))
    if colour.dtype.kind != "i" or colour.shape != pixels.shape[2:]:
        raise _unknown_transparency()
    equal = _are(pixels, colour)
    if pixels.dtype == np.uint8 and any(_are(pixels, other).any() for other in _otherwise(pixels, colour, equal.any())):
        raise _unknown_transparency()
    return equal


def _otherwise(
    pixels: NDArray[np.generic], colour: NDArray[np.int64], is_found: np.bool_
) -> Iterator[NDArray[np.int64]]:
    """What a transparent colour is among pixels of 8 bits if the file's have others."""
    if len(colour) == 1:
        steps = (step for step in _GREY_STEPS if colour[0] and not (pixels % step).any())
        yield from (colour * step for step in steps)
    elif (colour > 255).any() or not is_found:
        yield colour >> 8


def _are(pixels: NDArray[np.generic], colour: NDArray[np.int64]) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = (pixels == colour).all(axis=-1)
    return equal


def _unknown_transparency() -> ImageError:
    return ImageError(
        "which pixels of the image are transparent is not known", "save it with a channel of transparency"
    )

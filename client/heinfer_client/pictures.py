"""PIL images to fractions of the input's shape: as large as the model takes them, opaque, grey for a grey model."""

from __future__ import annotations

import numpy as np
from PIL import Image

from heinfer.errors import ImageError
from heinfer_client.arrays import Array, shapes
from heinfer_client.pil_images import decoded

_COMPOSITE = "Image.alpha_composite(Image.new('RGBA', image.size, 'black'), image.convert('RGBA'))"


def read_picture(
    image: Image.Image, shape: tuple[int, ...], ground: tuple[float, ...] | None, maximum: int | None
) -> Array:
    """A picture in 0..1, of the input's shape.

    Args:
        image: of one frame; its EXIF orientation is applied.
        shape: (1, H, W) or (H, W) of a grey model, (3, H, W) of one in colour, which takes grey as equal channels.
        ground: what transparent pixels are composited on, one fraction a channel.
        maximum: the integer that is white, where the mode does not say it or is too large.

    Raises:
        ImageError: says all that is wrong of size, transparency and colour; or what decoded says.
    """
    channels = shape[0] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in (1, 3):
        raise ImageError(f"a NumPy array of shape {shape} is expected, got a PIL image")
    picture = decoded(image, maximum)
    given = picture.colour.shape[0 if len(picture.colour) == 3 else 1 :]
    wrong = []
    if given[-2:] != shape[-2:]:
        size = shape[:-3:-1]
        wrong.append((f"an image of shape {shapes(shape)} is expected, got {given}", f"use image.resize({size})"))
    colour = picture.colour
    if not picture.is_opaque and ground is None:
        wrong.append(
            (
                "an opaque image is expected, as the model does not say what is behind transparent pixels",
                f"composite it on a ground of yours, as {_COMPOSITE} does",
            )
        )
    elif not picture.is_opaque:
        colour = picture.on(ground or ())
    if channels == 1 and (colour != colour[:1]).any():
        wrong.append((f"a PIL image of mode L is expected, got {image.mode} with colours", "use image.convert('L')"))
    if wrong:
        causes, ways = zip(*wrong, strict=True)
        raise ImageError("; ".join(causes), "; ".join(ways))
    return np.broadcast_to(colour[:channels], (channels, *shape[-2:])).reshape(shape)

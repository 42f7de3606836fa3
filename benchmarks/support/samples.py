"""An image for any model: times depend on its shape alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heinfer.formats.manifest import Manifest
from heinfer.zoo import digits


def image_for(manifest: Manifest) -> NDArray[Any]:
    """A digit that ships with heinfer where it fits, else random pixels, seeded."""
    digit: NDArray[Any] = digits().images[0]
    if manifest.input_shape == (1, *digit.shape):
        return digit
    return np.random.default_rng(0).integers(0, 256, manifest.input_shape).astype(np.uint8)

"""Named layouts by the numbers that a convolution has."""

import numpy as np

from heinfer.baselines.slot_maps import Raster, planes
from heinfer.layout.layout import Layout
from heinfer.layout.packings import window_pack

Planes = tuple[int, int, int]
Pair = tuple[int, int]


def conv_pack(shape: Planes, slots: int) -> Layout:
    """A ciphertext for each channel."""
    return planes(shape, Raster(*shape[1:]), slots, dense=False).places.layout()


def packed_windows(shape: Planes, kernel: Pair, stride: Pair, padding: Pair, slots: int) -> Layout:
    """A ciphertext for each channel and tap; outputs in their own order."""
    outputs = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:], kernel, stride, padding, strict=True)]
    taps = tuple(np.arange(-p, k - p) for k, p in zip(kernel, padding, strict=True))
    return window_pack(shape, (taps[0], taps[1]), stride, np.arange(outputs[0] * outputs[1]).reshape(outputs), slots)

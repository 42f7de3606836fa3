"""Inputs that no calibration chose, within the range that a client may send."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NOISE = 8
_SCALED = 8


def probes(inputs: Array, low: float, high: float) -> list[Array]:
    """Groups of (n, *input_shape) from low to high: flat ones and checkerboards, noise, and inputs scaled to both."""
    shape = inputs.shape[1:]
    board = np.indices(shape).sum(axis=0) % 2
    flat = [np.full(shape, x) for x in (low, high, low / 2 + high / 2)]
    boards = [np.where(board == side, low, high) for side in (0, 1)]
    noise = np.random.default_rng(0).uniform(0, 1, (_NOISE, *shape)) * (high - low) + low
    some = inputs[np.unique(np.linspace(0, len(inputs) - 1, min(_SCALED, len(inputs))).astype(int))]
    spread = np.ptp(some)
    share = (some - some.min()) / spread if spread else np.zeros_like(some)
    scaled = np.concatenate([share, 1 - share]) * (high - low) + low
    return [np.stack([*flat, *boards]), noise, scaled]

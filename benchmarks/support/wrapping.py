"""What CKKS makes of slots that are too large: coefficients modulo Q, exactly, in numpy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Slots = NDArray[np.complex128]


def wrapped(slots: NDArray[np.float64] | Slots, limit: float) -> Slots:
    """Slots (..., n) after a round trip through coefficients in [-limit, limit), the limit in the slots' unit."""
    coefficients = _to_coefficients(slots.astype(np.complex128))
    return _to_slots(coefficients - 2 * limit * np.floor(coefficients / (2 * limit) + 0.5))


def _to_coefficients(slots: Slots) -> NDArray[np.float64]:
    degree = 2 * slots.shape[-1]
    values = np.empty((*slots.shape[:-1], degree), dtype=np.complex128)
    places = _places(slots.shape[-1])
    values[..., places], values[..., degree - 1 - places] = slots, slots.conj()
    coefficients: NDArray[np.float64] = (np.fft.fft(values) / degree * _turn(degree).conj()).real
    return coefficients


def _to_slots(coefficients: NDArray[np.float64]) -> Slots:
    degree = coefficients.shape[-1]
    values: Slots = np.fft.ifft(coefficients * _turn(degree)) * degree
    return values[..., _places(degree // 2)]


@lru_cache
def _turn(degree: int) -> Slots:
    """Powers of a primitive root of order 2 * degree."""
    turn: Slots = np.exp(1j * np.pi * np.arange(degree) / degree)
    return turn


@lru_cache
def _places(slots: int) -> NDArray[np.int64]:
    """Which odd power 2k + 1 of that root the root of slot j is, which is its power 3^j: k."""
    places: NDArray[np.int64] = (np.array([pow(3, j, 4 * slots) for j in range(slots)]) - 1) // 2
    return places

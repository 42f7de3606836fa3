"""Slots and the coefficients of the polynomial that holds them, as CKKS encodes; and what rounding makes of slots."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Slots = NDArray[np.complex128]


def to_coefficients(slots: NDArray[np.float64] | Slots) -> NDArray[np.float64]:
    """The polynomial with real coefficients (..., 2n) that has the slots (..., n)."""
    degree = 2 * slots.shape[-1]
    values = np.empty((*slots.shape[:-1], degree), dtype=np.complex128)
    places = _places(slots.shape[-1])
    values[..., places], values[..., degree - 1 - places] = slots, slots.conj()
    coefficients: NDArray[np.float64] = (np.fft.fft(values) / degree * _turn(degree).conj()).real
    return coefficients


def to_slots(coefficients: NDArray[np.float64]) -> Slots:
    """The slots (..., n) of a polynomial with real coefficients (..., 2n)."""
    degree = coefficients.shape[-1]
    values: Slots = np.fft.ifft(coefficients * _turn(degree)) * degree
    return values[..., _places(degree // 2)]


def rounded(slots: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """What real slots, or one number for all of them, are once they are encoded at a scale."""
    if slots.size == 1:
        return np.rint(slots * scale) / scale
    found: NDArray[np.float64] = to_slots(np.rint(to_coefficients(slots) * scale)).real / scale
    return found


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

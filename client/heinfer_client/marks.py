"""What the form of an answer says of it: whether its values can be represented at all, and how noisy they are.

Values wrap round by the coefficients of the decrypted polynomial, modulo Q = prod(primes), and slots are sums of many
coefficients: what wraps adds 2 C k(r_j) to every slot j, with C = Q / 2 / scale, a polynomial k of whole numbers that
is not zero, and the slots' roots r_j. These are conjugate to each other, so that the product of all |k(r_j)| is a whole
number, and their geometric mean no less than 1. So an answer that has wrapped shows it:
slots that hold zero by the layout no longer do, or some score is beyond C, unless scores far beyond C meet a lattice by
chance. A layout without zeros has the second mark alone, and where its scores are few, they can wrap into others.

Slots are real and copies of an element equal, but for noise. What is left when both are taken away is a sample of it,
and no wrap at a lower level changes that: a rescale carries multiples of one modulus to multiples of the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heinfer.layout.layout import Layout

TOLERANCE = 2.0**-6
"""Of C, for the quadratic mean of what is zero but for noise. Noise that reaches it leaves little of any score."""


@dataclass(frozen=True)
class Marks:
    """What holds for all of one answer, the images of a batch alike.

    Attributes:
        in_range: whether nothing in it says that a value went beyond what the parameters can represent.
        noise: deviation of a slot's error. The copies of a score share theirs: their mean is hardly better than each.
    """

    in_range: bool
    noise: float

    def of_scores(self, exponent: int) -> Marks:
        """Of scores that are what is decoded times 2^exponent."""
        return Marks(self.in_range, self.noise * 2.0**exponent)


def read_marks(slots: NDArray[np.complex128], layout: Layout, limit: float) -> Marks:
    """Marks of a decrypted answer.

    Args:
        slots: (ciphertexts, slots).
        layout: of the answer, with no slots that may hold anything.
        limit: C.
    """
    scores = layout.unpack(slots.real)
    apart, held = slots.real - layout.pack(scores), layout.index >= 0
    # Of each ciphertext: one may have wrapped and the others not.
    noise = max(
        _size(part)
        for own, other, holds in zip(apart, slots.imag, held, strict=True)
        for part in (own[holds], own[~holds], other)
    )
    return Marks(bool(np.abs(scores).max() <= limit and noise <= TOLERANCE * limit), noise)


def _size(values: NDArray[np.float64]) -> float:
    """Quadratic mean, which is no less than the geometric one."""
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0

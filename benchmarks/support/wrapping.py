"""What CKKS makes of slots that are too large: coefficients modulo Q, exactly, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.encoding import Slots, to_coefficients, to_slots


def wrapped(slots: NDArray[np.float64] | Slots, limit: float) -> Slots:
    """Slots (..., n) after a round trip through coefficients in [-limit, limit), the limit in the slots' unit."""
    coefficients = to_coefficients(slots.astype(np.complex128))
    return to_slots(coefficients - 2 * limit * np.floor(coefficients / (2 * limit) + 0.5))

"""The security table: how many modulus bits each ring degree may carry.

128-bit classical security, uniform ternary secret. Two published tables exist and the stricter
one binds: Bossuat et al., "Security Guidelines for Implementing Homomorphic Encryption"
(ia.cr/2024/463, ternary secret, 128-bit classical), and the Homomorphic Encryption Standard as
shipped in Microsoft SEAL (``util/hestdparms.h``: 109, 218, 438, 881).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from heinfer.errors import InsecureParametersError

MAX_LOG_QP_128: dict[int, int] = {4096: 106, 8192: 214, 16384: 430, 32768: 868, 65536: 1747}
"""Ring degree N -> largest sum of log2 of *all* primes, the special one included."""

CITATION = "ia.cr/2024/463 (stricter than the table in SEAL), 128-bit classical, ternary secret"


def log_qp(primes: Sequence[int]) -> float:
    """Return the sum of log2 over all primes, the special one included."""
    return sum(log2(q) for q in primes)


def require_128_bit(ring_degree: int, primes: Sequence[int]) -> None:
    """Raise InsecureParametersError unless the parameters are 128-bit secure."""
    limit = MAX_LOG_QP_128.get(ring_degree)
    if limit is None:
        raise InsecureParametersError(
            f"ring degree {ring_degree} is not in the security table; use one of {sorted(MAX_LOG_QP_128)} ({CITATION})"
        )
    bits = log_qp(primes)
    if bits > limit:
        raise InsecureParametersError(
            f"{bits:.1f} bits of modulus at N = {ring_degree} exceed the {limit} that 128-bit security allows "
            f"({CITATION}); use fewer or smaller primes, or N = {ring_degree * 2}"
        )

"""CKKS parameters: ring degree and primes, and the identity that frames carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from math import prod

from heinfer.brief import brief_repr
from heinfer.ckks.primes import ntt_primes
from heinfer.ckks.security import MAX_LOG_QP_128, log_qp, require_128_bit
from heinfer.errors import ParameterError

MAX_PRIME_BITS = 30
"""Every prime fits 30 bits, so every residue fits a 32-bit word on the wire."""

MAX_PRIMES = 64
"""Of all levels and the special one: SEAL takes no more (util/defines.h, SEAL_COEFF_MOD_COUNT_MAX)."""

_SCHEME_CKKS = 2


@dataclass(frozen=True)
class Parameters:
    """A ring degree, data primes (the first one survives to the last level) and a special prime.

    Attributes:
        ring_degree: N, a power of two.
        data_primes: q_1 ... q_L; a fresh ciphertext has all of them, a rescale drops the last.
        special_prime: P, the largest prime, used by key switching only.

    Construct through :meth:`create` or :meth:`from_primes`, which enforce 128-bit security.
    """

    ring_degree: int
    data_primes: tuple[int, ...]
    special_prime: int

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"N={self.ring_degree}: {len(self.data_primes)} data primes and a special one, {self.log_qp:.1f} bits"

    def __post_init__(self) -> None:
        n = self.ring_degree
        if n < 8 or n & (n - 1):
            raise ParameterError(f"ring degree {n} is not a power of two >= 8")
        if not self.data_primes:
            raise ParameterError("at least one data prime is needed")
        if len(set(self.primes)) != len(self.primes):
            raise ParameterError("primes must be distinct")
        for q in self.primes:
            if q.bit_length() > MAX_PRIME_BITS or q % (2 * n) != 1:
                raise ParameterError(f"prime {q} must be below 2^{MAX_PRIME_BITS} and 1 mod {2 * n}")
        if self.special_prime < max(self.data_primes):
            raise ParameterError("the special prime must be the largest: key switching noise grows with max q / P")

    @classmethod
    def create(cls, ring_degree: int, data_bits: Sequence[int], special_bits: int) -> Parameters:
        """Choose primes of the given bit sizes as SEAL's CoeffModulus::Create does; 128-bit secure or refused."""
        *data, special = ntt_primes(ring_degree, [*data_bits, special_bits])
        return cls.from_primes(ring_degree, data, special)

    @classmethod
    def from_primes(cls, ring_degree: int, data_primes: Sequence[int], special_prime: int) -> Parameters:
        """Take given primes; InsecureParametersError when they are below 128-bit security."""
        require_128_bit(ring_degree, [*data_primes, special_prime])
        return cls(ring_degree, tuple(data_primes), special_prime)

    @property
    def slots(self) -> int:
        return self.ring_degree // 2

    @property
    def primes(self) -> tuple[int, ...]:
        """All primes in SEAL's order: data primes, then the special one."""
        return (*self.data_primes, self.special_prime)

    @property
    def top_level(self) -> int:
        """Level of a fresh ciphertext: rescales still possible."""
        return len(self.data_primes) - 1

    @property
    def seal_key_bytes(self) -> int:
        """Bytes of an evaluation key in SEAL: a digit for each data prime, two halves modulo all primes, in 8 bytes."""
        digits = len(self.data_primes)
        return 2 * 8 * self.ring_degree * digits * (digits + 1)

    @cached_property
    def log_qp(self) -> float:
        return log_qp(self.primes)

    @property
    def security_limit(self) -> int | None:
        """Bits of modulus that 128-bit security allows at this ring degree."""
        return MAX_LOG_QP_128.get(self.ring_degree)

    def primes_at(self, level: int) -> tuple[int, ...]:
        """Data primes a ciphertext at ``level`` still has."""
        if not 0 <= level <= self.top_level:
            raise ParameterError(f"level {level} is outside 0..{self.top_level}")
        return self.data_primes[: level + 1]

    def capacity(self, level: int, scale: float) -> float:
        """The |value| at which values of a level and scale wrap round: half the modulus, in units of the message."""
        return prod(self.primes_at(level)) / 2 / scale

    def parms_id(self, primes: Sequence[int]) -> bytes:
        """SEAL's id of a prime chain: BLAKE2b-256 over the words [scheme, N, q..., 0] (encryptionparams.cpp)."""
        words = [_SCHEME_CKKS, self.ring_degree, *primes, 0]
        return blake2b(b"".join(w.to_bytes(8, "little") for w in words), digest_size=32).digest()

    @cached_property
    def parameter_id(self) -> bytes:
        """32 bytes that name this parameter set on the wire: SEAL's id of the key level."""
        return self.parms_id(self.primes)

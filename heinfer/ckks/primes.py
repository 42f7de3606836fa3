"""NTT-friendly primes, in the order SEAL chooses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from heinfer.errors import ParameterError

# Deterministic Miller-Rabin bases for all n < 3.3e24 (Sorenson and Webster, 2015).
_BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)


def is_prime(n: int) -> bool:
    """Return whether n < 3.3e24 is prime (deterministic Miller-Rabin)."""
    if n < 2:
        return False
    for p in _BASES:
        if n % p == 0:
            return n == p
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd //= 2
        twos += 1
    return all(_is_strong_probable_prime(n, base, odd, twos) for base in _BASES)


def _is_strong_probable_prime(n: int, base: int, odd: int, twos: int) -> bool:
    x = pow(base, odd, n)
    if x in (1, n - 1):
        return True
    for _ in range(twos - 1):
        x = x * x % n
        if x == n - 1:
            return True
    return False


def ntt_primes(ring_degree: int, bits: Sequence[int]) -> list[int]:
    """Return distinct primes = 1 mod 2N of the given bit sizes.

    For each size the largest suitable primes are taken, as many as the size occurs, and handed out
    smallest first (SEAL, modulus.cpp CoeffModulus::Create and util/numth.cpp get_primes).

    Raises:
        ParameterError: when a size has too few such primes.
    """
    step = 2 * ring_degree
    pools: dict[int, list[int]] = {}
    for size, count in Counter(bits).items():
        found: list[int] = []
        candidate = ((1 << size) - 1) // step * step + 1
        while len(found) < count and candidate > 1 << (size - 1):
            if is_prime(candidate):
                found.append(candidate)
            candidate -= step
        if len(found) < count:
            raise ParameterError(f"only {len(found)} primes of {size} bits are 1 mod {step}, {count} are needed")
        pools[size] = found
    return [pools[size].pop() for size in bits]

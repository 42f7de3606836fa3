"""CKKS parameters from the depth of a network, under the security table.

The ring is the smallest that holds a level for every layer. What its security leaves over makes the primes wider: each
bit of a prime is one of precision, of the values or of the weights.
"""

from __future__ import annotations

from heinfer.ckks.parameters import MAX_PRIMES, Parameters
from heinfer.ckks.security import MAX_LOG_QP_128
from heinfer.errors import PlanError

BASE_BITS = 28
"""At least, of the prime that survives to level 0: bound x scale of the scores must stay below half of it."""
RESCALE_BITS = 26
"""At least, of the prime that a rescale divides by."""
SPECIAL_BITS = 30
"""The largest prime that fits a 32-bit word with room for lazy additions; key switching noise shrinks with it."""


def smallest_parameters(levels: int, minimum_degree: int = 4096, prime_bits: int = RESCALE_BITS) -> Parameters | None:
    """Return the smallest secure ring with so many levels, its primes as wide as it allows; None when there is none.

    Args:
        prime_bits: of every data prime at least, RESCALE_BITS to SPECIAL_BITS.
    """
    bits = _bits(levels, prime_bits)
    for degree, limit in sorted(MAX_LOG_QP_128.items()):
        if degree >= minimum_degree and levels <= _most_levels(degree, prime_bits):
            widened = _widened([max(BASE_BITS, prime_bits), *[prime_bits] * levels], limit - bits)
            return Parameters.create(degree, widened, SPECIAL_BITS)
    return None


def _widened(data_bits: list[int], spare: int) -> list[int]:
    """Hand out bits in rounds, the lowest prime first: the noise of the last layers reaches the scores as it is."""
    for number in list(range(len(data_bits))) * (SPECIAL_BITS - RESCALE_BITS):
        if spare and data_bits[number] < SPECIAL_BITS:
            data_bits[number] += 1
            spare -= 1
    return data_bits


def choose_parameters(levels: int, minimum_degree: int = 4096, prime_bits: int = RESCALE_BITS) -> Parameters:
    """Return the smallest secure ring with that many levels; PlanError when there is none."""
    found = smallest_parameters(levels, minimum_degree, prime_bits)
    if found:
        return found
    largest = max(MAX_LOG_QP_128)
    raise PlanError(
        f"the network needs {levels} levels ({_bits(levels, prime_bits)} bits of modulus); N = {largest} gives "
        f"{_most_levels(largest, prime_bits)} at 128-bit security: use fewer layers"
    )


def deepest_parameters(degree: int) -> Parameters:
    """Return the secure parameters with most levels in a ring that the security table has."""
    return choose_parameters(_most_levels(degree), degree)


def levels_there_are() -> int:
    """Of the largest secure ring: no network can be deeper."""
    return _most_levels(max(MAX_LOG_QP_128))


def _most_levels(degree: int, prime_bits: int = RESCALE_BITS) -> int:
    return min(int((MAX_LOG_QP_128[degree] - _bits(0, prime_bits)) // prime_bits), MAX_PRIMES - 2)


def _bits(levels: int, prime_bits: int) -> int:
    return max(BASE_BITS, prime_bits) + prime_bits * levels + SPECIAL_BITS


def wider_parameters(parameters: Parameters, prime_bits: int = RESCALE_BITS) -> Parameters | None:
    """The same levels in a ring of twice the slots; None when there is none."""
    degree = 2 * parameters.ring_degree
    return choose_parameters(parameters.top_level, degree, prime_bits) if degree in MAX_LOG_QP_128 else None

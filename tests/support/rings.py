"""Rings too small to be secure, for tests only: no code outside `tests/` can open one."""

from __future__ import annotations

from tenseal import sealapi

from heinfer.ckks.parameters import Parameters
from heinfer.ckks.primes import ntt_primes
from heinfer.ckks.seal import Ring, build_context


def tiny_parameters(
    ring_degree: int = 64, data_bits: tuple[int, ...] = (28, 26, 26), special_bits: int = 30
) -> Parameters:
    """Parameters that no security check has seen."""
    *data, special = ntt_primes(ring_degree, [*data_bits, special_bits])
    return Parameters(ring_degree, tuple(data), special)


def insecure_ring(parameters: Parameters) -> Ring:
    """Open a ring without any security check."""
    return Ring(parameters, build_context(parameters, sealapi.SEC_LEVEL_TYPE.NONE))

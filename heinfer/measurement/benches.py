"""Backends that can be measured, by name, and the ring and keys to measure them with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from heinfer.ckks.parameters import Parameters
from heinfer.ckks.security import MAX_LOG_QP_128
from heinfer.errors import SettingError
from heinfer.measurement.measure import Bench
from heinfer.measurement.native import NativeBench
from heinfer.measurement.tenseal import TensealBench
from heinfer.planner.parameters import deepest_parameters

BACKENDS: Mapping[str, Callable[[Parameters, Sequence[int]], Bench]] = {"native": NativeBench, "tenseal": TensealBench}

RING_DEGREES = tuple(sorted(MAX_LOG_QP_128))
"""Those with parameters that are 128-bit secure."""
COMMON_RING_DEGREES = tuple(degree for degree in RING_DEGREES if degree <= 32768)
"""Those to measure unless told otherwise: larger ones take many times as long, and few networks need them."""

_KEYS_BYTES = 1 << 26  # more than the caches that a core has, as a rule
_KEYS = 2, 8


def require_measurable(backend: str, ring_degrees: Iterable[int]) -> None:
    """Raise SettingError for a backend or a ring degree that cannot be measured; names those that can."""
    if backend not in BACKENDS:
        raise SettingError(f"backend {backend!r} cannot be measured; there are {', '.join(BACKENDS)}")
    for degree in ring_degrees:
        if degree not in RING_DEGREES:
            known = ", ".join(map(str, RING_DEGREES))
            raise SettingError(f"N = {degree} has no 128-bit secure parameters; use one of {known}")


def open_bench(backend: str, ring_degree: int) -> Bench:
    """Open the ring with most levels that is 128-bit secure, of primes as the planner takes them, and make keys.

    Rotation keys are so many that they do not fit a cache together: a network's do not, either. Where one key is
    larger already there are two. SettingError as :func:`require_measurable` raises it.
    """
    require_measurable(backend, [ring_degree])
    parameters = deepest_parameters(ring_degree)
    primes = len(parameters.primes)
    least, most = _KEYS
    keys = min(max(_KEYS_BYTES // (16 * ring_degree * primes * (primes - 1)), least), most)
    return BACKENDS[backend](parameters, range(1, keys + 1))

"""Latency of an evaluation: estimated at first, then measured."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2

from heinfer.circuit.ir import KEY_SWITCHES
from heinfer_server.models import ServedModel

_SECONDS_A_BUTTERFLY = {"tenseal": 1.2e-9, "native": 1.5e-10}
"""Seconds of one butterfly of a transform's N log2 N, to an order of magnitude: enough to tell ms from s."""

_NEW_SHARE = 0.2
_LEAST_SECONDS = 2**-9


def expected_seconds(model: ServedModel, backend: str) -> float:
    """Estimated seconds of an evaluation, from its key switches."""
    typed = model.bundle.typed
    transforms = 0
    for op, level in zip(typed.circuit.ops, typed.levels, strict=True):
        if op.kind in KEY_SWITCHES:
            primes = level + 1
            transforms += primes * (primes + 3) + 2
    degree = typed.parameters.ring_degree
    return transforms * degree * log2(degree) * _SECONDS_A_BUTTERFLY[backend]


class Latency:
    """Moving average of evaluation seconds, by the digest of the model's manifest."""

    def __init__(self, expected: Mapping[str, float]) -> None:
        self._expected = dict(expected)
        self._seen: set[str] = set()

    def seconds(self, manifest: str) -> float:
        return self._expected[manifest]

    def roughly(self, manifest: str) -> float:
        """The average rounded up to a power of two: an exact one would tell a client of every evaluation of others."""
        return float(2 ** ceil(log2(max(self.seconds(manifest), _LEAST_SECONDS))))

    def note(self, manifest: str, seconds: float) -> None:
        """Add one measured evaluation."""
        share = _NEW_SHARE if manifest in self._seen else 1.0
        self._seen.add(manifest)
        self._expected[manifest] += share * (seconds - self._expected[manifest])

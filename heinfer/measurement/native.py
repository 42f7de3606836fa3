"""The bench of the native backend: random words for keys and ciphertexts, as times do not depend on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heinfer.backends.native import NativeKeys, NativeOptions, NativeProgram, NativeRing
from heinfer.backends.native.ring import Words
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters

_SEED_BYTES = 64


class NativeBench:
    """A ring with random keys; see heinfer.measurement.measure.Bench.

    Args:
        steps: rotations that there will be keys for.

    Attributes:
        ring, keys: of the native library.
    """

    backend = "native"
    hoists = True

    def __init__(self, parameters: Parameters, steps: Sequence[int]) -> None:
        self.parameters = parameters
        self.steps = steps
        self.ring = NativeRing.secure(parameters)
        self._random = np.random.default_rng(0)
        top = parameters.top_level
        self.keys = NativeKeys(self.ring, dict.fromkeys([0, *steps], top))
        for step in (0, *steps):
            digits = np.stack([self._words(parameters.primes) for _ in range(top + 1)])
            self.keys.add(step, digits, [self._random.bytes(_SEED_BYTES) for _ in range(top + 1)])

    def encrypt(self, count: int, level: int, scale: float) -> Sequence[tuple[Words, Words]]:  # noqa: ARG002
        """Ciphertexts of no key."""
        primes = self.parameters.primes_at(level)
        return [(self._words(primes), self._words(primes)) for _ in range(count)]

    def encode(self, typed: TypedCircuit, threads: int = 1) -> NativeProgram:
        """The program of a circuit, with its constants encoded."""
        return NativeProgram(typed, self.ring, NativeOptions(threads))

    def run(self, program: NativeProgram, inputs: Sequence[tuple[Words, Words]]) -> None:
        """Evaluate a program."""
        program.run(inputs, self.keys)

    def _words(self, primes: Sequence[int]) -> Words:
        n = self.parameters.ring_degree
        return np.stack([self._random.integers(0, prime, n, np.uint32) for prime in primes])

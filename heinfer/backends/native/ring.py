"""A ring of the native library, and the expansion of seeds in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heinfer.backends.native.library import instruction_set, library
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.security import require_128_bit

Words = NDArray[np.uint32]


class NativeRing:
    """Parameters with the library's tables for them.

    Construct through :meth:`secure`: no other way that is not a test's checks the security of the parameters.

    Attributes:
        parameters: ring degree and primes.
        handle: the library's object.
    """

    def __init__(self, parameters: Parameters, kernels: str | None = None) -> None:
        """Open a ring; `kernels` forces an instruction set where the environment does not."""
        self.parameters = parameters
        chosen = instruction_set() if kernels is None else kernels
        self.handle = library().Ring(parameters.ring_degree, list(parameters.primes), chosen)

    @classmethod
    def secure(cls, parameters: Parameters) -> NativeRing:
        """Open a ring that is 128-bit secure; InsecureParametersError otherwise."""
        require_128_bit(parameters.ring_degree, parameters.primes)
        return cls(parameters)

    @property
    def instruction_set(self) -> str:
        """What its kernels are compiled for."""
        return str(self.handle.kernels)

    def expand(self, seed: bytes, primes: Sequence[int]) -> Words:
        """The uniform polynomial, (primes, N), that SEAL expands from 64 bytes."""
        expanded = library().expand_seed(seed, self.parameters.ring_degree, list(primes), self.instruction_set)
        return np.asarray(expanded, dtype=np.uint32)

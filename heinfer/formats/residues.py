"""What both our frames and SEAL's bytes carry: residues of ciphertexts and keys, as 32-bit words, and seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = NDArray[np.uint32]
"""Residues in number-theoretic-transform form, canonical: each below its prime."""

PRNG_BLAKE2XB = 1
"""SEAL's default generator (randomgen.h); the one our client's SEAL uses, and the one we accept."""

SEED_BYTES = 64


@dataclass(frozen=True)
class Seed:
    """What the uniform half of a seeded object is expanded from: 64 bytes, and the generator that does it."""

    data: bytes
    prng: int = PRNG_BLAKE2XB


@dataclass(frozen=True, eq=False)
class CiphertextFrame:
    """A ciphertext of two polynomials, the second given by its words or by a seed, never both.

    Attributes:
        level: it has level + 1 primes.
        scale: of its encoding.
        c0: (level + 1, N) uint32.
        c1: (level + 1, N) uint32, or None.
        seed: or None.
    """

    level: int
    scale: float
    c0: Words
    c1: Words | None = None
    seed: Seed | None = None


@dataclass(frozen=True, eq=False)
class KeyFrame:
    """A seeded key-switching key for use up to a level: pairs (b_j, a_j), one for each prime there, a_j as a seed.

    Attributes:
        step: rotation in slots to the left, 0 for the relinearization key.
        digits: (level + 1, level + 2, N) uint32: b_j over the primes of that level and the special one, which is last.
        seeds: one a digit; each expands to a_j over all primes of the parameters, of which the same ones are used.
    """

    step: int
    digits: Words
    seeds: tuple[Seed, ...]

    @property
    def level(self) -> int:
        """The highest level at which the key can be used."""
        return len(self.seeds) - 1

    def trimmed(self, level: int) -> KeyFrame:
        """The key for use up to a lower level: without the digits and the primes that nothing reads there."""
        rows = [*range(level + 1), self.digits.shape[1] - 1]
        return KeyFrame(self.step, self.digits[: level + 1, rows], self.seeds[: level + 1])

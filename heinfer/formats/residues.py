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
    """A seeded key-switching key: pairs (b_j, a_j) over all primes, one for each data prime, a_j as a seed.

    Attributes:
        step: rotation in slots to the left, 0 for the relinearization key.
        digits: (L, k, N) uint32: b_j over all k = L + 1 primes, the special one last.
        seeds: one a digit.
    """

    step: int
    digits: Words
    seeds: tuple[Seed, ...]

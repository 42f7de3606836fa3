"""How SEAL 4 lays out its objects in bytes; little-endian throughout.

Sources: Microsoft SEAL native/src/seal: serialization.h, ciphertext.cpp, dynarray.h, randomgen.cpp, kswitchkeys.cpp.
Every object is a header and a body; objects inside a body carry a header of their own.
"""

from __future__ import annotations

import struct

from heinfer.ckks.parameters import Parameters
from heinfer.formats.residues import SEED_BYTES

MAGIC = 0xA15E
MODE_NONE = 0
MODE_ZSTD = 2
WORD_BYTES = 8

HEADER = struct.Struct("<HBBBBHQ")
"""magic, header length, major, minor, compression mode, reserved (0), total length with this header."""

CIPHERTEXT = struct.Struct("<32sBQQQdQ")
"""parms_id, is NTT form, polynomials, N, primes, scale, correction factor (1 in CKKS); then an array of words."""

ARRAY_COUNT = struct.Struct("<Q")
"""Body of an array: this count, then the words, ordered by polynomial, prime, coefficient."""

PRNG = struct.Struct(f"<B{SEED_BYTES}s")
"""Body of the generator's description that follows the array of a seeded ciphertext."""

KEYS = struct.Struct("<32sQ")
"""Body of a container of switching keys: parms_id of the key level, number of slots; then the slots."""

SLOT = struct.Struct("<Q")
"""A slot: number of digits (0 when empty), then as many ciphertext objects over all primes."""

KEY_SCALE = 1.0
"""Scale of the ciphertexts that switching keys consist of."""


def ciphertext_length(ring_degree: int, primes: int, *, seeded: bool) -> int:
    """Bytes of a ciphertext object of two polynomials, uncompressed, its header included."""
    polynomials = 1 if seeded else 2
    words = ring_degree * primes * polynomials
    fixed = HEADER.size + CIPHERTEXT.size + HEADER.size + ARRAY_COUNT.size
    return fixed + words * WORD_BYTES + (HEADER.size + PRNG.size if seeded else 0)


def keys_length(parameters: Parameters, *, slots: int, keys: int) -> int:
    """Bytes of a container with `keys` seeded keys in `slots` slots, uncompressed, its header included."""
    digit = ciphertext_length(parameters.ring_degree, len(parameters.primes), seeded=True)
    return HEADER.size + KEYS.size + slots * SLOT.size + keys * len(parameters.data_primes) * digit


def galois_slot(parameters: Parameters, step: int) -> int:
    """Slot of the key for a rotation by `step` slots to the left: (3^step mod 2N - 1) / 2 (galoiskeys.h)."""
    return (pow(3, step, 2 * parameters.ring_degree) - 1) // 2

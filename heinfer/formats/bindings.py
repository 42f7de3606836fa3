"""What a frame is bound to: 32 bytes in its header that only the right manifest, keys and request give.

Every digest is SHA-256 over a text of its own, which ends with a zero byte, and then parts of fixed length, so that no
two kinds and no two contents run into each other. Numbers are 32-bit words, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b, sha256

from heinfer.formats.frame_fields import VERSION
from heinfer.formats.keys_part import KeysPart
from heinfer.formats.parameters_part import ParametersPart

BINDING_BYTES = 32

_KEYS = f"heinfer keys {VERSION}\0".encode()
_EVALUATION = f"heinfer evaluation {VERSION}\0".encode()


def manifest_binding(manifest: bytes) -> bytes:
    """Of the inputs for a manifest: SHA-256 of its bytes as they are served."""
    return sha256(manifest).digest()


def keys_binding(parameters: ParametersPart, keys: KeysPart) -> bytes:
    """Of evaluation keys: what they depend on, and nothing else, so that models that want the same keys share them.

    The ring degree, then with their number before them the data primes, the special primes, the digits, and of every
    key, ascending (0: relinearization), step and level.
    """
    levels = [number for entry in keys.levels.items() for number in entry]
    words = [parameters.ring_degree]
    for part in (parameters.data_primes, parameters.special_primes, parameters.digits):
        words += [len(part), *part]
    words += [len(levels) // 2, *levels]
    return sha256(_KEYS + _words(words)).digest()


def evaluation_binding(manifest: bytes, key_id: str, inputs: bytes) -> bytes:
    """Of the outputs of one evaluation: with which manifest, of which keys and which frame of inputs.

    Whoever evaluates computes it over what it evaluates, and the client over what it asked for: where answers have
    changed places between them, they differ. It is a check on mistakes: who has the request can compute it, too.

    Args:
        manifest: its binding, 32 bytes.
        key_id: of the registered keys.
        inputs: the frame that the client sent.
    """
    of_inputs = blake2b(inputs, digest_size=BINDING_BYTES).digest()  # twice as fast where processors know no SHA-256
    return sha256(_EVALUATION + manifest + sha256(key_id.encode()).digest() + of_inputs).digest()


def _words(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)

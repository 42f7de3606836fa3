"""Strict reader of the bytes that our own SEAL saved: every byte is accounted for, every field has one right value.

SEAL's own bytes never cross the network; that they are read as strictly as if they did is what notices a changed
library.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from heinfer.ckks.parameters import Parameters
from heinfer.ckks.seal import LIBRARY_VERSION
from heinfer.errors import FormatError
from heinfer.formats import seal_layout as layout
from heinfer.formats.residues import PRNG_BLAKE2XB, CiphertextFrame, KeyFrame, Seed, Words

_MAX_WINDOW = 1 << 23  # as SEAL 4.4 caps it
_INNER_HEADER = [layout.MAGIC, layout.HEADER.size, *LIBRARY_VERSION, layout.MODE_NONE, 0]


def read_ciphertext(data: bytes, parameters: Parameters) -> CiphertextFrame:
    """Read a ciphertext of two polynomials, full or seeded, at any level; FormatError when it is anything else."""
    limit = layout.ciphertext_length(parameters.ring_degree, len(parameters.data_primes), seeded=False)
    cursor = _Cursor(_open_object(data, limit))
    ids = [parameters.parms_id(parameters.primes_at(level)) for level in range(parameters.top_level + 1)]
    parms_id = cursor.peek(32)
    if parms_id not in ids:
        raise FormatError("the ciphertext is of other CKKS parameters")
    level = ids.index(parms_id)
    primes = parameters.primes_at(level)
    scale = cursor.ciphertext_fields(parameters, primes)
    if not 0 < scale < np.inf:
        raise FormatError("the ciphertext's scale is not finite and positive")
    count = cursor.array_count()
    if count == 2 * len(primes) * parameters.ring_degree:
        c0, c1 = (cursor.words(parameters, primes) for _ in range(2))
        cursor.end()
        return CiphertextFrame(level, scale, c0, c1)
    cursor.require(count == len(primes) * parameters.ring_degree, "number of words")
    c0, seed = cursor.words(parameters, primes), cursor.seed()
    cursor.end()
    return CiphertextFrame(level, scale, c0, seed=seed)


def read_key(data: bytes, parameters: Parameters, step: int) -> KeyFrame:
    """Read a container that holds one seeded key alone, the one of `step` (0: relinearization).

    Raises:
        FormatError: when it is anything else.
    """
    slots, slot = (parameters.ring_degree, layout.galois_slot(parameters, step)) if step else (1, 0)
    cursor = _Cursor(_open_object(data, layout.keys_length(parameters, slots=slots, keys=1)))
    cursor.require(cursor.take(layout.KEYS) == (parameters.parameter_id, slots), "key container")
    cursor.zeros(slot * layout.SLOT.size)
    digits = len(parameters.data_primes)
    cursor.require(cursor.take(layout.SLOT) == (digits,), "number of digits")
    words: list[Words] = []
    seeds: list[Seed] = []
    size = len(parameters.primes) * parameters.ring_degree
    for _ in range(digits):
        cursor.header(layout.ciphertext_length(parameters.ring_degree, len(parameters.primes), seeded=True))
        cursor.require(cursor.ciphertext_fields(parameters, parameters.primes) == layout.KEY_SCALE, "scale of a key")
        cursor.require(cursor.array_count() == size, "number of words")
        words.append(cursor.words(parameters, parameters.primes))
        seeds.append(cursor.seed())
    cursor.zeros((slots - slot - 1) * layout.SLOT.size)
    cursor.end()
    return KeyFrame(step, np.stack(words), tuple(seeds))


def _open_object(data: bytes, limit: int) -> bytes:
    """Check the outer header and return the body, inflated to at most `limit` bytes with its header."""
    if len(data) < layout.HEADER.size:
        raise FormatError("the bytes are too short for an object of SEAL")
    *fixed, mode, reserved, length = layout.HEADER.unpack_from(data)
    if fixed != [layout.MAGIC, layout.HEADER.size, *LIBRARY_VERSION] or reserved or length != len(data):
        raise FormatError("the bytes are no object of this version of SEAL")
    body = data[layout.HEADER.size :]
    if mode == layout.MODE_ZSTD:
        return _inflate(body, limit - layout.HEADER.size)
    if mode != layout.MODE_NONE:
        raise FormatError(f"an object of SEAL may be compressed by zstd or not at all, mode {mode} is neither")
    return body


def _inflate(body: bytes, limit: int) -> bytes:
    try:
        stream = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(body, read_across_frames=True)
        inflated = stream.read(limit + 1)
    except zstandard.ZstdError as error:
        raise FormatError("an object of SEAL has a damaged zstd stream") from error
    if len(inflated) > limit:
        raise FormatError(f"an object of SEAL is larger than the {limit} bytes it can need")
    return inflated


class _Cursor:
    """Reads a body from its start to its end; FormatError on whatever is not as it must be."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def require(self, condition: bool, what: str) -> None:
        if not condition:
            raise FormatError(f"an object of SEAL has an unexpected {what}")

    def peek(self, length: int) -> bytes:
        return self._data[self._position : self._position + length]

    def _advance(self, length: int) -> int:
        start = self._position
        self.require(start + length <= len(self._data), "end")
        self._position += length
        return start

    def take(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack_from(self._data, self._advance(form.size))

    def header(self, length: int) -> None:
        """The header of an inner object, which is never compressed."""
        self.require(self.take(layout.HEADER) == (*_INNER_HEADER, length), "inner header")

    def ciphertext_fields(self, parameters: Parameters, primes: Sequence[int]) -> float:
        """The fixed fields of a ciphertext of two polynomials in NTT form; returns its scale."""
        *fields, scale, correction = self.take(layout.CIPHERTEXT)
        self.require(fields == [parameters.parms_id(primes), 1, 2, parameters.ring_degree, len(primes)], "ciphertext")
        self.require(correction == 1, "correction factor")
        return float(scale)

    def array_count(self) -> int:
        """Header and count of an array of words."""
        *header, length = self.take(layout.HEADER)
        (count,) = self.take(layout.ARRAY_COUNT)
        self.require(header == _INNER_HEADER, "inner header")
        self.require(length == layout.HEADER.size + layout.ARRAY_COUNT.size + count * layout.WORD_BYTES, "array length")
        return int(count)

    def words(self, parameters: Parameters, primes: Sequence[int]) -> Words:
        """One polynomial: (primes, N) residues, each below its prime."""
        count = len(primes) * parameters.ring_degree
        start = self._advance(count * layout.WORD_BYTES)
        words: NDArray[np.uint64] = np.frombuffer(self._data, "<u8", count, start).reshape(len(primes), -1)
        self.require(bool((words.max(axis=-1) < np.array(primes, dtype=np.uint64)).all()), "residue")
        return words.astype(np.uint32)

    def seed(self) -> Seed:
        self.header(layout.HEADER.size + layout.PRNG.size)
        prng, data = self.take(layout.PRNG)
        self.require(prng == PRNG_BLAKE2XB, "random generator")
        return Seed(data)

    def zeros(self, length: int) -> None:
        start = self._advance(length)
        self.require(not any(self._data[start : start + length]), "key beside the one asked for")

    def end(self) -> None:
        self.require(self._position == len(self._data), "end")

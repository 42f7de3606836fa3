"""The frames that cross the network: ciphertexts and evaluation keys (docs/wire-format.md).

A frame is checked whole before anything of it is used: its length against what the plan implies before anything is
allocated, then every field.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from math import ulp
from mmap import mmap
from typing import Any, TypeAlias

import numpy as np

from heinfer.ckks.parameters import Parameters
from heinfer.errors import (
    CiphertextMismatchError,
    FrameBindingError,
    FrameError,
    FrameLengthError,
    KeySetError,
    NewerFormatError,
    ResidueRangeError,
)
from heinfer.formats.frame_fields import (
    HEADER,
    HEADER_LENGTH,
    KIND_CIPHERTEXTS,
    KIND_KEYS,
    MAGIC,
    VERSION,
    Field,
    Levels,
    ciphertext_fields,
    ciphertexts_length,
    key_fields,
    key_length,
    key_primes,
    keys_length,
)
from heinfer.formats.packing import pack, unpack
from heinfer.formats.residues import PRNG_BLAKE2XB, CiphertextFrame, KeyFrame, Seed, Words

__all__ = [
    "CiphertextFrame",
    "KeyFrame",
    "Levels",
    "Seed",
    "ciphertexts_length",
    "decode_ciphertexts",
    "decode_keys",
    "encode_ciphertexts",
    "encode_keys",
    "key_length",
    "keys_length",
    "read_keys",
]

Data: TypeAlias = bytes | mmap
"""A frame, in memory or in a file."""

_KIND_NAMES = {KIND_CIPHERTEXTS: "ciphertexts", KIND_KEYS: "evaluation keys"}
_BOUND_ELSEWHERE = {
    KIND_CIPHERTEXTS: "for another manifest or of another evaluation than they should be",
    KIND_KEYS: "for another key set: make them from the manifest that the request names",
}


# Writing ---------------------------------------------------------------------------------------


def encode_ciphertexts(parameters: Parameters, binding: bytes, frames: Sequence[CiphertextFrame]) -> bytes:
    """Write one or more ciphertexts of one level, all seeded or none; ValueError when they are not that."""
    level, seeded = frames[0].level, frames[0].seed is not None
    values = _header(KIND_CIPHERTEXTS, binding, len(frames))
    for frame in frames:
        if frame.level != level or (frame.seed is not None) != seeded or (frame.c1 is None) != seeded:
            raise ValueError("the ciphertexts of a frame share one level, and are all seeded or none of them")
        second = _seed_values(frame.seed) if frame.seed is not None else [frame.c1]
        values += [level, int(seeded), frame.scale, frame.c0, *second]
    return _write(ciphertext_fields(parameters, count=len(frames), level=level, seeded=seeded), values)


def encode_keys(parameters: Parameters, binding: bytes, frames: Sequence[KeyFrame]) -> bytes:
    """Write keys in ascending order of their steps (the relinearization key, step 0, first)."""
    values = _header(KIND_KEYS, binding, len(frames))
    for frame in sorted(frames, key=lambda key: key.step):
        seeds = (part for seed in frame.seeds for part in _seed_values(seed))
        values += [frame.step, frame.level, *seeds, frame.digits]
    return _write(key_fields(parameters, {frame.step: frame.level for frame in frames}), values)


_Value = int | float | bytes | Words | None


def _header(kind: int, binding: bytes, count: int) -> list[_Value]:
    return [MAGIC, VERSION, kind, binding, count]


def _seed_values(seed: Seed) -> list[_Value]:
    return [seed.prng, seed.data]


def _write(fields: Sequence[Field], values: Sequence[_Value]) -> bytes:
    parts: list[bytes] = []
    for field, value in zip(fields, values, strict=True):
        part = pack(value, field.primes) if isinstance(value, np.ndarray) else struct.pack("<" + field.format, value)
        if len(part) != field.size:
            raise ValueError(f"{field.name} takes {field.size} bytes, not {len(part)}")
        parts.append(part)
    return b"".join(parts)


# Reading ---------------------------------------------------------------------------------------


def decode_ciphertexts(
    data: bytes, parameters: Parameters, binding: bytes, *, count: int, level: int, scale: float, seeded: bool
) -> tuple[CiphertextFrame, ...]:
    """Read exactly the ciphertexts that a plan asks for; their scale is the plan's own.

    Args:
        binding: that they must have (heinfer.formats.bindings).

    Raises:
        FrameError: when the bytes are no frame of ciphertexts.
        NewerFormatError: when a newer heinfer wrote them.
        FrameBindingError: when they are bound to something else.
        FrameLengthError: when there are too few or too many bytes.
        CiphertextMismatchError: when count, level, scale or kind are not the plan's, or a ciphertext is transparent.
        ResidueRangeError: when a residue is not below its prime.
    """
    found = _open_frame(data, KIND_CIPHERTEXTS, binding)
    if found != count:
        raise CiphertextMismatchError(f"{count} ciphertexts are expected, {found} are given")
    fields = ciphertext_fields(parameters, count=count, level=level, seeded=seeded)
    reader = _Reader(data, fields, parameters.ring_degree)
    frames: list[CiphertextFrame] = []
    for number in range(count):
        where = f"ciphertext {number}"
        if reader.number(f"{number}.level") != level:
            raise CiphertextMismatchError(f"{where} must be at level {level}")
        if reader.number(f"{number}.seeded") != seeded:
            raise CiphertextMismatchError(f"{where} must {'' if seeded else 'not '}be seeded")
        if not abs(reader.real(f"{number}.scale") - scale) <= ulp(scale):  # so written that NaN fails
            raise CiphertextMismatchError(f"{where} must have the scale {scale!r}")
        primes = parameters.primes_at(level)
        c0 = reader.words(f"{number}.c0", (), primes)
        c1 = None if seeded else reader.words(f"{number}.c1", (), primes)
        if not c0.any(axis=-1).all() or (c1 is not None and not c1.any(axis=-1).all()):
            raise CiphertextMismatchError(f"{where} is transparent: a polynomial of it is zero")
        frames.append(CiphertextFrame(level, scale, c0, c1, reader.seed(f"{number}.") if seeded else None))
    return tuple(frames)


def decode_keys(data: Data, parameters: Parameters, binding: bytes, levels: Levels) -> tuple[KeyFrame, ...]:
    """Read exactly the keys that a manifest lists, in ascending order of steps (0: relinearization).

    Args:
        binding: that they must have (heinfer.formats.bindings).

    Raises:
        FrameError: when the bytes are no frame of keys.
        NewerFormatError: when a newer heinfer wrote them.
        FrameBindingError: when they are keys for something else.
        FrameLengthError: when there are too few or too many bytes.
        KeySetError: when they are not exactly these keys, in this order and for these levels.
        ResidueRangeError: when a residue is not below its prime.
    """
    return tuple(read_keys(data, parameters, binding, levels))


def read_keys(data: Data, parameters: Parameters, binding: bytes, levels: Levels) -> Iterator[KeyFrame]:
    """Read as decode_keys does, one key after the other: whoever only checks them holds one of them at a time."""
    found = _open_frame(data, KIND_KEYS, binding)
    if found != len(levels):
        raise KeySetError(f"{len(levels)} keys are expected, {found} are given")
    reader = _Reader(data, key_fields(parameters, levels), parameters.ring_degree)
    for number, (step, level) in enumerate(sorted(levels.items())):
        if reader.number(f"{number}.step") != step:
            raise KeySetError(f"key {number} must be of step {step}: exactly the manifest's keys, in ascending order")
        if reader.number(f"{number}.level") != level:
            raise KeySetError(f"the key of step {step} must be for use up to level {level}")
        digits = reader.words(f"{number}.digits", (level + 1,), key_primes(parameters, level))
        if not digits.any(axis=-1).all():
            raise KeySetError(f"the key of step {step} has an empty digit")
        seeds = tuple(reader.seed(f"{number}.{digit}.") for digit in range(level + 1))
        yield KeyFrame(step, digits, seeds)


def _open_frame(data: Data, kind: int, binding: bytes) -> int:
    if len(data) < HEADER_LENGTH:
        raise FrameLengthError(f"a frame has at least {HEADER_LENGTH} bytes, not {len(data)}")
    reader = _Reader(data[:HEADER_LENGTH], HEADER, 0)
    if reader.raw("magic") != MAGIC:
        raise FrameError("the bytes are no frame of heinfer")
    version = reader.number("version")
    if version > VERSION:
        raise NewerFormatError(f"the frame has format {version}, this heinfer reads {VERSION}: upgrade it")
    if version != VERSION:
        raise FrameError(f"the frame must have format {VERSION}")
    if reader.number("kind") != kind:
        raise FrameError(f"the frame must hold {_KIND_NAMES[kind]}")
    if reader.raw("binding") != binding:
        raise FrameBindingError(f"the {_KIND_NAMES[kind]} are {_BOUND_ELSEWHERE[kind]}")
    return reader.number("count")


class _Reader:
    """Fields of a frame by name, once its length has been found to be theirs."""

    def __init__(self, data: Data, fields: Sequence[Field], ring_degree: int) -> None:
        if len(data) != fields[-1].end:
            raise FrameLengthError(f"the frame must have {fields[-1].end} bytes, not {len(data)}")
        self._data = data
        self._ring_degree = ring_degree
        self._fields: Mapping[str, Field] = {field.name: field for field in fields}

    def number(self, name: str) -> int:
        return int(self._value(name))

    def real(self, name: str) -> float:
        return float(self._value(name))

    def raw(self, name: str) -> bytes:
        return bytes(self._value(name))

    def seed(self, prefix: str) -> Seed:
        if self.number(prefix + "prng") != PRNG_BLAKE2XB:
            raise FrameError(f"the seed {prefix}seed must be of generator {PRNG_BLAKE2XB} (BLAKE2Xb)")
        return Seed(self.raw(prefix + "seed"))

    def words(self, name: str, batch: tuple[int, ...], primes: Sequence[int]) -> Words:
        """Residues of shape (*batch, primes, N), each below its prime."""
        field = self._fields[name]
        rows = unpack(memoryview(self._data)[field.offset : field.end], field.primes, self._ring_degree)
        words = rows.reshape(*batch, len(primes), -1)
        if (words.max(axis=-1) >= np.array(primes, dtype=np.uint32)).any():
            raise ResidueRangeError(f"{name} has a residue that is not below its prime")
        return words

    def _value(self, name: str) -> Any:
        field = self._fields[name]
        return struct.unpack_from("<" + field.format, self._data, field.offset)[0]

"""Hostile bytes, generated from the frames' own field tables."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from heinfer.formats.frame_fields import Field


@dataclass(frozen=True)
class Mutation:
    """A frame with one thing wrong.

    Attributes:
        label: what was done to which field.
        data: the bytes.
        detectable: whether a reader can and must refuse it (any 64 bytes are a seed, any residues below their primes
            are a ciphertext).
    """

    label: str
    data: bytes
    detectable: bool = True


def mutations(fields: Sequence[Field], frame: bytes, ring_degree: int, seed: int = 0) -> Iterator[Mutation]:
    """Every field x {min-1, max+1, random, swapped with its neighbour of equal size}, then wrong lengths.

    Args:
        fields: of the frame.
        frame: a good one.
        ring_degree: residues in a row.
        seed: of the random values.
    """
    rng = np.random.default_rng(seed)
    for field in fields:
        for label, value, detectable in _values(field, frame, ring_degree, rng):
            mutated = frame[: field.offset] + value + frame[field.end :]
            if mutated != frame:
                yield Mutation(f"{field.name}: {label}", mutated, detectable)
    yield from _swaps(fields, frame)
    yield from _lengths(fields, frame)


def _values(
    field: Field, frame: bytes, ring_degree: int, rng: np.random.Generator
) -> Iterator[tuple[str, bytes, bool]]:
    content = frame[field.offset : field.end]
    if field.primes:
        yield from _residues(content, field, ring_degree, rng)
    elif field.format.endswith("s"):
        detectable = not field.name.endswith("seed")
        yield "zeros", bytes(field.size), detectable
        yield "ones", b"\xff" * field.size, detectable
        yield "random", rng.bytes(field.size), detectable
    elif field.format == "d":
        (value,) = struct.unpack("<d", content)
        above, below = (math.nextafter(math.nextafter(value, to), to) for to in (math.inf, -math.inf))
        for number in (above, below, 0.0, -value, math.inf, -math.inf, math.nan, 1e300, 5e-324, float(rng.normal())):
            yield repr(number), struct.pack("<d", number), True
    else:
        (value,) = struct.unpack("<" + field.format, content)
        largest = (1 << 8 * field.size) - 1
        for number in (0, value - 1, value + 1, largest, int(rng.integers(largest))):
            yield str(number), struct.pack("<" + field.format, number % (largest + 1)), True


def _residues(
    content: bytes, field: Field, ring_degree: int, rng: np.random.Generator
) -> Iterator[tuple[str, bytes, bool]]:
    at = 0
    for row, prime in enumerate(field.primes):
        width = prime.bit_length()
        size = ring_degree * width // 8
        whole = int.from_bytes(content[at : at + size], "little")
        position = int(rng.integers(ring_degree)) * width
        largest = (1 << width) - 1

        def changed(
            number: int,
            whole: int = whole,
            position: int = position,
            size: int = size,
            at: int = at,
            most: int = largest,
        ) -> bytes:
            packed = (whole & ~(most << position)) | number << position
            return content[:at] + packed.to_bytes(size, "little") + content[at + size :]

        for number in (prime, largest, int(rng.integers(prime, largest + 1))):
            yield f"row {row} has {number}", changed(number), True
        yield f"row {row} is zero", content[:at] + bytes(size) + content[at + size :], True
        yield f"row {row} differs", changed(int(rng.integers(1, prime))), False
        at += size
    yield "zeros", bytes(field.size), True
    yield "ones", b"\xff" * field.size, True


def _swaps(fields: Sequence[Field], frame: bytes) -> Iterator[Mutation]:
    sizes = {field.size for field in fields}
    for size in sizes:
        for first, second in pairwise(field for field in fields if field.size == size):
            a, b = frame[first.offset : first.end], frame[second.offset : second.end]
            if a != b:
                mutated = frame[: first.offset] + b + frame[first.end : second.offset] + a + frame[second.end :]
                undetectable = first.name.endswith("seed") or first.primes == second.primes != ()
                yield Mutation(f"{first.name} and {second.name} swapped", mutated, not undetectable)


def _lengths(fields: Sequence[Field], frame: bytes) -> Iterator[Mutation]:
    for field in fields:
        yield Mutation(f"ends before {field.name}", frame[: field.offset])
    yield Mutation("one byte short", frame[:-1])
    yield Mutation("one byte more", frame + b"\0")
    yield Mutation("twice", frame * 2)

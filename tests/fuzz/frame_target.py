"""What the fuzzer of the frame reader looks at: bytes are refused by a typed error, or are a frame and nothing else.

An input is a byte that says what the reader expects, then what it is given. Ring and counts are tiny, so that every
field is a large share of a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from rings import tiny_parameters

from heinfer.errors import FormatError
from heinfer.formats.frame_fields import Field, ciphertext_fields, key_fields, key_primes
from heinfer.formats.frames import decode_ciphertexts, decode_keys, encode_ciphertexts, encode_keys
from heinfer.formats.residues import CiphertextFrame, KeyFrame, Seed

PARAMETERS = tiny_parameters(8, (20, 18), 22)
SCALE = 2.0**10
BINDING = bytes(range(32))


@dataclass(frozen=True)
class Expectation:
    """What a reader is asked for: ciphertexts, or keys by step and level (step 0: relinearization)."""

    count: int = 0
    level: int = 0
    seeded: bool = False
    levels: tuple[tuple[int, int], ...] = ()

    def fields(self) -> tuple[Field, ...]:
        if self.levels:
            return key_fields(PARAMETERS, dict(self.levels))
        return ciphertext_fields(PARAMETERS, count=self.count, level=self.level, seeded=self.seeded)

    def good_frame(self) -> bytes:
        rng = np.random.default_rng(0)
        if self.levels:
            return encode_keys(PARAMETERS, BINDING, [_key(rng, step, level) for step, level in self.levels])
        return encode_ciphertexts(PARAMETERS, BINDING, [self._ciphertext(rng) for _ in range(self.count)])

    def _ciphertext(self, rng: np.random.Generator) -> CiphertextFrame:
        primes = PARAMETERS.primes_at(self.level)
        c0, c1 = _residues(rng, primes), _residues(rng, primes)
        seed = Seed(rng.bytes(64))
        return CiphertextFrame(self.level, SCALE, c0, None if self.seeded else c1, seed if self.seeded else None)

    def read_back(self, data: bytes) -> bytes:
        """The frame that was read, written again; FormatError when it is refused."""
        if self.levels:
            keys = decode_keys(data, PARAMETERS, BINDING, dict(self.levels))
            assert [(key.step, key.level) for key in keys] == list(self.levels)
            for key in keys:
                _check_residues(key.digits, key_primes(PARAMETERS, key.level))
            return encode_keys(PARAMETERS, BINDING, keys)
        ciphertexts = decode_ciphertexts(
            data, PARAMETERS, BINDING, count=self.count, level=self.level, scale=SCALE, seeded=self.seeded
        )
        assert len(ciphertexts) == self.count
        for frame in ciphertexts:
            assert (frame.level, frame.scale, frame.seed is not None) == (self.level, SCALE, self.seeded)
            for half in (frame.c0, frame.c1):
                if half is not None:
                    _check_residues(half, PARAMETERS.primes_at(self.level))
        return encode_ciphertexts(PARAMETERS, BINDING, ciphertexts)


EXPECTATIONS = (
    Expectation(1, 1, seeded=True),
    Expectation(1, 0, seeded=False),
    Expectation(2, 1, seeded=True),
    Expectation(2, 1, seeded=False),
    Expectation(levels=((0, 1),)),
    Expectation(levels=((1, 0), (3, 1))),
    Expectation(levels=((0, 0), (2, 0))),
)


def check(data: bytes) -> bool:
    """Read one input of the fuzzer; whether it was a frame. Anything but a FormatError comes through."""
    if not data:
        return False
    expected, frame = EXPECTATIONS[data[0] % len(EXPECTATIONS)], data[1:]
    try:
        again = expected.read_back(frame)
    except FormatError:
        return False
    assert len(again) == len(frame)
    # The scale is the plan's own, from which a frame's may be a unit in the last place away.
    scales = [field for field in expected.fields() if field.name.endswith(".scale")]
    for field in scales:
        frame = frame[: field.offset] + again[field.offset : field.end] + frame[field.end :]
    assert again == frame, "what was read is not what was given"
    return True


def seeds() -> Iterator[bytes]:
    """A good input for each expectation."""
    for number, expected in enumerate(EXPECTATIONS):
        yield bytes([number]) + expected.good_frame()


def mutate(data: bytes, random: np.random.Generator, fallback: Callable[[bytes], bytes]) -> bytes:
    """Change one field of a frame, and leave the rest in place; or what `fallback` makes of a field's bytes."""
    if len(data) < 2:
        data = next(seeds())
    if random.random() < 0.05:  # another reader for the same bytes
        return bytes([int(random.integers(len(EXPECTATIONS)))]) + data[1:]
    if random.random() < 0.05:
        return _any_seed(random)
    fields = EXPECTATIONS[data[0] % len(EXPECTATIONS)].fields()
    field = fields[int(random.integers(len(fields)))]
    start, end = 1 + field.offset, 1 + field.end
    piece = data[start:end]
    match int(random.integers(5)):
        case 0 if (
            field.primes and len(piece) == field.size
        ):  # one residue becomes a prime, its neighbour or the largest
            piece = _with_a_residue(piece, field.primes, random)
        case 0:  # one word of it becomes small, large, or a prime or its neighbour
            word = _interesting(random)
            at = 4 * int(random.integers(max(1, field.size // 4)))
            piece = (piece[:at] + word + piece[at + 4 :])[: field.size]
        case 1:
            piece = bytes(len(piece))
        case 2:  # shorter or longer
            piece = piece[: int(random.integers(len(piece) + 1))] if random.random() < 0.5 else piece + piece[:4]
        case 3:  # as another field of the same size
            other = fields[int(random.integers(len(fields)))]
            piece = data[1 + other.offset : 1 + other.end][: field.size] or piece
        case _:
            piece = fallback(piece)
    return data[:start] + piece + data[end:]


def _any_seed(random: np.random.Generator) -> bytes:
    every = list(seeds())
    return every[int(random.integers(len(every)))]


def _with_a_residue(piece: bytes, primes: tuple[int, ...], random: np.random.Generator) -> bytes:
    row = int(random.integers(len(primes)))
    width = primes[row].bit_length()
    n = PARAMETERS.ring_degree
    at = sum(n * prime.bit_length() for prime in primes[:row]) + width * int(random.integers(n))
    largest = (1 << width) - 1
    number = (0, primes[row] - 1, primes[row], primes[row] + 1, largest)[int(random.integers(5))] & largest
    whole = int.from_bytes(piece, "little") & ~(largest << at) | number << at
    return whole.to_bytes(len(piece), "little")


def _interesting(random: np.random.Generator) -> bytes:
    words = [0, 1, 2, 3, 2**16, 2**31, 2**32 - 1]
    words += [prime + offset for prime in PARAMETERS.primes for offset in (-1, 0, 1)]
    return int(words[int(random.integers(len(words)))]).to_bytes(4, "little")


def _residues(rng: np.random.Generator, primes: tuple[int, ...], *batch: int) -> np.ndarray:
    bounds = np.array(primes)[:, None]
    return rng.integers(1, bounds, (*batch, len(primes), PARAMETERS.ring_degree)).astype(np.uint32)


def _key(rng: np.random.Generator, step: int, level: int) -> KeyFrame:
    words = _residues(rng, key_primes(PARAMETERS, level), level + 1)
    return KeyFrame(step, words, tuple(Seed(rng.bytes(64)) for _ in range(level + 1)))


def _check_residues(words: np.ndarray, primes: tuple[int, ...]) -> None:
    assert (words < np.array(primes)[:, None]).all()
    assert words.any(axis=-1).all()

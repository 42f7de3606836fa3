"""The field tables of the frames: name, offset and format of everything on the wire.

Writer, reader, promised length and the hostile-input tests all go by these tables. ``docs/wire-format.md`` has the
rules and their reasons.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from heinfer.ckks.parameters import Parameters
from heinfer.formats.residues import SEED_BYTES

MAGIC = b"HEIF"
VERSION = 1
KIND_CIPHERTEXTS = 1
KIND_KEYS = 2

_Format = tuple[str, str]  # name and struct format

_SEED: tuple[_Format, ...] = (("prng", "I"), ("seed", f"{SEED_BYTES}s"))


@dataclass(frozen=True)
class Field:
    """One field of a frame: `format` is of `struct`, little-endian, without padding; residues are a repeated "I"."""

    name: str
    offset: int
    format: str

    @property
    def size(self) -> int:
        return struct.calcsize("<" + self.format)

    @property
    def end(self) -> int:
        return self.offset + self.size


def _placed(formats: Iterable[_Format]) -> tuple[Field, ...]:
    fields: list[Field] = []
    for name, form in formats:
        fields.append(Field(name, fields[-1].end if fields else 0, form))
    return tuple(fields)


HEADER: tuple[Field, ...] = _placed(
    [("magic", "4s"), ("version", "H"), ("kind", "H"), ("parameter_id", "32s"), ("count", "I")]
)
HEADER_LENGTH = HEADER[-1].end


def ciphertext_fields(parameters: Parameters, *, count: int, level: int, seeded: bool) -> tuple[Field, ...]:
    """Fields of a frame of `count` ciphertexts, all at one level; names are "0.c0" for the first one's c0."""
    residues = f"{(level + 1) * parameters.ring_degree}I"
    second: tuple[_Format, ...] = _SEED if seeded else (("c1", residues),)
    item: tuple[_Format, ...] = (("level", "I"), ("seeded", "I"), ("scale", "d"), ("c0", residues), *second)
    return _placed(_frame([item] * count))


def key_fields(parameters: Parameters, *, count: int) -> tuple[Field, ...]:
    """Fields of a frame of `count` keys; "0.1.seed" is of the first key's second digit, "0.digits" has every b_j."""
    digits, primes = len(parameters.data_primes), len(parameters.primes)
    seeds = tuple((f"{digit}.{name}", form) for digit in range(digits) for name, form in _SEED)
    item: tuple[_Format, ...] = (("step", "I"), *seeds, ("digits", f"{digits * primes * parameters.ring_degree}I"))
    return _placed(_frame([item] * count))


def _frame(items: Sequence[Iterable[_Format]]) -> Iterator[_Format]:
    for field in HEADER:
        yield field.name, field.format
    for number, item in enumerate(items):
        for name, form in item:
            yield f"{number}.{name}", form


def ciphertexts_length(parameters: Parameters, *, count: int, level: int, seeded: bool) -> int:
    """Bytes of a frame of ciphertexts: what is written, and the only length that is read."""
    return ciphertext_fields(parameters, count=count, level=level, seeded=seeded)[-1].end


def keys_length(parameters: Parameters, *, steps: Sequence[int], relinearization: bool) -> int:
    """Bytes of a frame of these keys: what is written, and the only length that is read."""
    return key_fields(parameters, count=len(steps) + relinearization)[-1].end

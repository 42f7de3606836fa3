"""The field tables of the frames: name, offset and format of everything on the wire.

Writer, reader, promised length and the hostile-input tests all go by these tables. ``docs/wire-format.md`` has the
rules and their reasons.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from heinfer.ckks.parameters import Parameters
from heinfer.formats.packing import packed_size
from heinfer.formats.residues import SEED_BYTES

MAGIC = b"HEIF"
VERSION = 3
KIND_CIPHERTEXTS = 1
KIND_KEYS = 2

Levels: TypeAlias = Mapping[int, int]
"""The step of every key, 0 for the relinearization key -> the highest level at which it is used."""


@dataclass(frozen=True)
class Form:
    """A field without its place.

    Attributes:
        name: of the field.
        format: of `struct`, little-endian, without padding.
        primes: of residues, which are bytes to `struct`: the prime of each row, packed to its width.
    """

    name: str
    format: str
    primes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Field(Form):
    """One field of a frame, at its offset."""

    offset: int = 0

    @property
    def size(self) -> int:
        return struct.calcsize("<" + self.format)

    @property
    def end(self) -> int:
        return self.offset + self.size


def _placed(forms: Iterable[Form]) -> tuple[Field, ...]:
    fields: list[Field] = []
    for form in forms:
        fields.append(Field(form.name, form.format, form.primes, fields[-1].end if fields else 0))
    return tuple(fields)


def _residues(name: str, parameters: Parameters, primes: Sequence[int]) -> Form:
    return Form(name, f"{packed_size(parameters.ring_degree, primes)}s", tuple(primes))


_SEED = (Form("prng", "I"), Form("seed", f"{SEED_BYTES}s"))

HEADER: tuple[Field, ...] = _placed(
    [Form("magic", "4s"), Form("version", "H"), Form("kind", "H"), Form("binding", "32s"), Form("count", "I")]
)
HEADER_LENGTH = HEADER[-1].end


def ciphertext_fields(parameters: Parameters, *, count: int, level: int, seeded: bool) -> tuple[Field, ...]:
    """Fields of a frame of `count` ciphertexts, all at one level; names are "0.c0" for the first one's c0."""
    primes = parameters.primes_at(level)
    second = _SEED if seeded else (_residues("c1", parameters, primes),)
    head = (Form("level", "I"), Form("seeded", "I"), Form("scale", "d"))
    item = (*head, _residues("c0", parameters, primes), *second)
    return _placed(_frame([item] * count))


def key_fields(parameters: Parameters, levels: Levels) -> tuple[Field, ...]:
    """Fields of a frame of keys; "0.1.seed" is of the first key's second digit, "0.digits" has every b_j."""
    return _placed(_frame([_key(parameters, levels[step]) for step in sorted(levels)]))


def key_primes(parameters: Parameters, level: int) -> tuple[int, ...]:
    """The primes that a key for use up to a level has: those of the level, and the special one."""
    return (*parameters.primes_at(level), parameters.special_prime)


def _key(parameters: Parameters, level: int) -> tuple[Form, ...]:
    seeds = (replace(form, name=f"{digit}.{form.name}") for digit in range(level + 1) for form in _SEED)
    digits = _residues("digits", parameters, key_primes(parameters, level) * (level + 1))
    return (Form("step", "I"), Form("level", "I"), *seeds, digits)


def _frame(items: Sequence[Iterable[Form]]) -> Iterator[Form]:
    yield from HEADER
    for number, item in enumerate(items):
        for form in item:
            yield replace(form, name=f"{number}.{form.name}")


def ciphertexts_length(parameters: Parameters, *, count: int, level: int, seeded: bool) -> int:
    """Bytes of a frame of ciphertexts: what is written, and the only length that is read."""
    return ciphertext_fields(parameters, count=count, level=level, seeded=seeded)[-1].end


def keys_length(parameters: Parameters, levels: Levels) -> int:
    """Bytes of a frame of these keys: what is written, and the only length that is read."""
    return HEADER_LENGTH + sum(key_length(parameters, level) for level in levels.values())


def key_length(parameters: Parameters, level: int) -> int:
    """Bytes of one key, for use up to a level, in a frame."""
    return _placed(_key(parameters, level))[-1].end

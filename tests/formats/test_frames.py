"""Frames: round trips, golden bytes of every version, and every kind of damage refused."""

import math
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hostile import Mutation, mutations
from hypothesis import given, settings
from hypothesis import strategies as st
from rings import tiny_parameters

from heinfer.ckks.parameters import Parameters
from heinfer.errors import (
    CiphertextMismatchError,
    FormatError,
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
    VERSION,
    Field,
    ciphertext_fields,
    key_fields,
    key_primes,
)
from heinfer.formats.frames import (
    CiphertextFrame,
    KeyFrame,
    Seed,
    ciphertexts_length,
    decode_ciphertexts,
    decode_keys,
    encode_ciphertexts,
    encode_keys,
    key_length,
    keys_length,
)
from heinfer.formats.packing import pack, packed_size, unpack

PARAMETERS = tiny_parameters()
SCALE = 2.0**26.5
BINDING = bytes(range(32))


def residues(rng: np.random.Generator, primes: tuple[int, ...], *batch: int) -> np.ndarray:
    bounds = np.array(primes)[:, None]
    return rng.integers(1, bounds, (*batch, len(primes), PARAMETERS.ring_degree)).astype(np.uint32)


def ciphertext(rng: np.random.Generator, level: int = 2, scale: float = SCALE, *, seeded: bool) -> CiphertextFrame:
    primes = PARAMETERS.primes_at(level)
    second = {"seed": Seed(rng.bytes(64))} if seeded else {"c1": residues(rng, primes)}
    return CiphertextFrame(level, scale, residues(rng, primes), **second)


def key(rng: np.random.Generator, step: int, level: int = 2) -> KeyFrame:
    seeds = tuple(Seed(rng.bytes(64)) for _ in range(level + 1))
    return KeyFrame(step, residues(rng, key_primes(PARAMETERS, level), level + 1), seeds)


def same_ciphertext(x: CiphertextFrame, y: CiphertextFrame) -> bool:
    seconds = (x.c1, y.c1) if x.c1 is not None and y.c1 is not None else (np.zeros(0), np.zeros(0))
    return (
        (x.level, x.scale, x.seed) == (y.level, y.scale, y.seed)
        and (x.c1 is None) == (y.c1 is None)
        and np.array_equal(x.c0, y.c0)
        and np.array_equal(*seconds)
    )


def decode(data: bytes, count: int = 2, level: int = 2, *, seeded: bool = True) -> tuple[CiphertextFrame, ...]:
    return decode_ciphertexts(data, PARAMETERS, BINDING, count=count, level=level, scale=SCALE, seeded=seeded)


# What is written is what is read ---------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 4),
    level=st.integers(0, PARAMETERS.top_level),
    scale=st.floats(1.0, 2.0**60),
    seeded=st.booleans(),
)
def test_ciphertexts_come_back_as_they_were(seed, count, level, scale, seeded):
    rng = np.random.default_rng(seed)
    frames = [ciphertext(rng, level, scale, seeded=seeded) for _ in range(count)]
    data = encode_ciphertexts(PARAMETERS, BINDING, frames)
    assert len(data) == ciphertexts_length(PARAMETERS, count=count, level=level, seeded=seeded)
    read = decode_ciphertexts(data, PARAMETERS, BINDING, count=count, level=level, scale=scale, seeded=seeded)
    assert all(same_ciphertext(x, y) for x, y in zip(frames, read, strict=True))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), levels=st.dictionaries(st.integers(0, 31), st.integers(0, 2), max_size=5))
def test_keys_come_back_as_they_were_in_ascending_order(seed, levels):
    rng = np.random.default_rng(seed)
    frames = [key(rng, step, level) for step, level in levels.items()]
    data = encode_keys(PARAMETERS, BINDING, frames)
    assert len(data) == keys_length(PARAMETERS, levels)
    read = decode_keys(data, PARAMETERS, BINDING, levels)
    for x, y in zip(sorted(frames, key=lambda frame: frame.step), read, strict=True):
        assert (x.step, x.level, x.seeds) == (y.step, y.level, y.seeds)
        assert np.array_equal(x.digits, y.digits)


def test_sizes_at_the_reference_parameters():
    parameters = Parameters.create(8192, [28, *[26] * 6], 30)
    assert ciphertexts_length(parameters, count=1, level=6, seeded=True) <= 195_000
    lengths = [key_length(parameters, level) for level in range(7)]
    assert lengths[6] <= 1_535_000
    assert lengths == sorted(lengths)
    assert lengths[1] < lengths[6] / 8


def test_a_trimmed_key_has_what_its_level_reads():
    whole = key(np.random.default_rng(0), 5)
    for level in range(3):
        trimmed = whole.trimmed(level)
        assert (trimmed.step, trimmed.level, trimmed.seeds) == (5, level, whole.seeds[: level + 1])
        assert trimmed.digits.shape == (level + 1, level + 2, PARAMETERS.ring_degree)
        for digit in range(level + 1):
            assert np.array_equal(trimmed.digits[digit, : level + 1], whole.digits[digit, : level + 1])
            assert np.array_equal(trimmed.digits[digit, -1], whole.digits[digit, -1])  # the special prime's
    assert np.array_equal(whole.trimmed(2).digits, whole.digits)


def test_the_scale_may_be_one_unit_in_the_last_place_off_and_becomes_the_plans():
    frame = ciphertext(np.random.default_rng(0), scale=math.nextafter(SCALE, math.inf), seeded=True)
    (read,) = decode(encode_ciphertexts(PARAMETERS, BINDING, [frame]), count=1)
    assert read.scale == SCALE


def test_the_ciphertexts_of_a_frame_are_of_one_kind():
    rng = np.random.default_rng(0)
    seeded, full = ciphertext(rng, seeded=True), ciphertext(rng, seeded=False)
    with pytest.raises(ValueError, match="share one level"):
        encode_ciphertexts(PARAMETERS, BINDING, [seeded, full])
    with pytest.raises(ValueError, match="share one level"):
        encode_ciphertexts(PARAMETERS, BINDING, [seeded, ciphertext(rng, level=1, seeded=True)])


def test_the_tables_leave_no_gap():
    for fields in (
        HEADER,
        ciphertext_fields(PARAMETERS, count=2, level=1, seeded=False),
        key_fields(PARAMETERS, {0: 2, 5: 1}),
    ):
        assert fields[0].offset == 0
        assert all(field.end == after.offset for field, after in pairwise(fields))
        assert len({field.name for field in fields}) == len(fields)


# Golden bytes ----------------------------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_frames() -> dict[str, bytes]:
    """Frames of this version whose every byte is fixed: words count up, seeds too."""
    n = PARAMETERS.ring_degree

    def counting(start: int, primes: tuple[int, ...], *batch: int) -> np.ndarray:
        shape = (*batch, len(primes), n)
        words = (np.arange(np.prod(shape), dtype=np.uint64) + start) * 2654435761
        return (words.reshape(shape) % np.array(primes, dtype=np.uint64)[:, None]).astype(np.uint32)

    def seed(number: int) -> Seed:
        return Seed(bytes(range(number, number + 64)))

    two = [CiphertextFrame(1, SCALE, counting(i + 1, PARAMETERS.primes_at(1)), seed=seed(i)) for i in range(2)]
    full = CiphertextFrame(0, 2.0**22, counting(7, PARAMETERS.primes_at(0)), counting(9, PARAMETERS.primes_at(0)))
    keys = [
        KeyFrame(
            step,
            counting(step + 1, key_primes(PARAMETERS, level), level + 1),
            tuple(seed(j) for j in range(level + 1)),
        )
        for step, level in {0: 1, 3: 0, 5: 2}.items()
    ]
    return {
        "inputs": encode_ciphertexts(PARAMETERS, BINDING, two),
        "outputs": encode_ciphertexts(PARAMETERS, BINDING, [full]),
        "keys": encode_keys(PARAMETERS, BINDING, keys),
    }


@pytest.mark.parametrize("name", ["inputs", "outputs", "keys"])
def test_frames_are_written_as_they_always_were(name):
    assert golden_frames()[name] == (GOLDEN / f"frame-{VERSION}-{name}").read_bytes()


@pytest.mark.parametrize("name", ["inputs", "outputs", "keys"])
def test_golden_frames_are_read_and_written_again_byte_for_byte(name):
    data = (GOLDEN / f"frame-{VERSION}-{name}").read_bytes()
    if name == "keys":
        assert encode_keys(PARAMETERS, BINDING, decode_keys(data, PARAMETERS, BINDING, {0: 1, 3: 0, 5: 2})) == data
        return
    count, level, scale = (2, 1, SCALE) if name == "inputs" else (1, 0, 2.0**22)
    expected = {"count": count, "level": level, "scale": scale, "seeded": name == "inputs"}
    assert encode_ciphertexts(PARAMETERS, BINDING, decode_ciphertexts(data, PARAMETERS, BINDING, **expected)) == data


@pytest.mark.parametrize("version", range(1, VERSION))
@pytest.mark.parametrize("name", ["inputs", "outputs", "keys"])
def test_frames_of_earlier_versions_are_refused_as_such(name, version):
    """Version 1 had 32-bit words and keys over all primes, version 2 was bound to a ring only."""
    data = (GOLDEN / f"frame-{version}-{name}").read_bytes()
    read = {
        "inputs": decode,
        "outputs": lambda data: decode(data, 1, 0, seeded=False),
        "keys": lambda data: decode_keys(data, PARAMETERS, BINDING, {0: 2, 3: 2}),
    }[name]
    with pytest.raises(FrameError, match=f"must have format {VERSION}"):
        read(data)


# Packing ---------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    log_n=st.integers(3, 9),
    runs=st.lists(st.tuples(st.integers(2, 30), st.integers(1, 3)), min_size=1, max_size=4),
    digits=st.integers(1, 2),
)
def test_a_row_is_the_number_whose_digits_are_its_residues(seed, log_n, runs, digits):
    n, widths = 1 << log_n, [width for width, times in runs for _ in range(times)]
    primes = [(1 << width) - 1 for width in widths]  # packing asks for nothing but their widths
    rng = np.random.default_rng(seed)
    words = np.stack([rng.integers(0, prime + 1, n) for prime in digits * primes]).astype(np.uint32)
    rows = [
        sum(int(word) << i * width for i, word in enumerate(row)).to_bytes(n * width // 8, "little")
        for row, width in zip(words, digits * widths, strict=True)
    ]
    data = pack(words.reshape(digits, len(primes), n), primes)
    assert data == b"".join(rows)
    assert len(data) == digits * packed_size(n, primes)
    assert np.array_equal(unpack(memoryview(data), digits * primes, n), words)


# Hostile bytes ---------------------------------------------------------------------------------


def hostile_ciphertexts(*, seeded: bool) -> list[Mutation]:
    rng = np.random.default_rng(1)
    data = encode_ciphertexts(PARAMETERS, BINDING, [ciphertext(rng, seeded=seeded) for _ in range(2)])
    fields = ciphertext_fields(PARAMETERS, count=2, level=2, seeded=seeded)
    return list(mutations(fields, data, PARAMETERS.ring_degree))


LEVELS = {0: 2, 3: 1, 5: 1, 7: 0}


def hostile_keys() -> list[Mutation]:
    rng = np.random.default_rng(2)
    data = encode_keys(PARAMETERS, BINDING, [key(rng, step, level) for step, level in LEVELS.items()])
    return list(mutations(key_fields(PARAMETERS, LEVELS), data, PARAMETERS.ring_degree))


@pytest.mark.parametrize("seeded", [True, False])
def test_every_detectable_mutation_of_ciphertexts_is_refused(seeded):
    for mutation in hostile_ciphertexts(seeded=seeded):
        expect_refusal(mutation, lambda data: decode(data, seeded=seeded))


def test_every_detectable_mutation_of_keys_is_refused():
    for mutation in hostile_keys():
        expect_refusal(mutation, lambda data: decode_keys(data, PARAMETERS, BINDING, LEVELS))


def expect_refusal(mutation, read):
    refused_with: type[FormatError] | None = None
    try:
        read(mutation.data)
    except FormatError as error:
        refused_with = type(error)
    assert (refused_with is not None) == mutation.detectable, mutation.label
    assert refused_with is not FormatError, f"{mutation.label}: an error without a type of its own"


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    with pytest.raises(FrameError):
        decode(data)
    with pytest.raises(FrameError):
        decode_keys(data, PARAMETERS, BINDING, {0: 2, 1: 0})


def changed(data: bytes, field: Field, value: object) -> bytes:
    return data[: field.offset] + struct.pack("<" + field.format, value) + data[field.end :]


def test_each_failure_has_its_own_type():
    rng = np.random.default_rng(3)
    good = encode_ciphertexts(PARAMETERS, BINDING, [ciphertext(rng, seeded=True)])
    fields = {field.name: field for field in ciphertext_fields(PARAMETERS, count=1, level=2, seeded=True)}
    keys = encode_keys(PARAMETERS, BINDING, [key(rng, 1), key(rng, 2)])

    def of(data: bytes, **expected: object) -> type[Exception]:
        asked = {"count": 1, "level": 2, "scale": SCALE, "seeded": True, **expected}
        with pytest.raises(FormatError) as caught:
            decode_ciphertexts(data, PARAMETERS, BINDING, **asked)
        return caught.type

    assert of(b"") is FrameLengthError
    assert of(good[:-1]) is FrameLengthError
    assert of(good + b"\0") is FrameLengthError
    assert of(changed(good, fields["magic"], b"XXXX")) is FrameError
    assert of(changed(good, fields["version"], VERSION + 1)) is NewerFormatError
    for older in range(VERSION):
        assert of(changed(good, fields["version"], older)) is FrameError
    assert of(keys) is FrameError
    assert of(changed(good, fields["binding"], bytes(32))) is FrameBindingError
    assert of(good, count=2) is CiphertextMismatchError
    assert of(changed(good, fields["0.level"], 1)) is CiphertextMismatchError
    assert of(changed(good, fields["0.seeded"], 0)) is CiphertextMismatchError
    assert of(changed(good, fields["0.scale"], math.nan)) is CiphertextMismatchError
    assert of(good, scale=SCALE * 2) is CiphertextMismatchError
    assert of(changed(good, fields["0.prng"], 2)) is FrameError
    c0 = fields["0.c0"]
    transparent = bytes(c0.size)
    assert of(good[: c0.offset] + transparent + good[c0.end :]) is CiphertextMismatchError
    assert of(good[: c0.end - 4] + b"\xff" * 4 + good[c0.end :]) is ResidueRangeError


@pytest.mark.parametrize("levels", [{1: 2}, {1: 2, 3: 2}, {0: 2, 1: 2, 2: 2}, {0: 2, 2: 2}])
def test_other_keys_than_asked_for_are_refused(levels):
    rng = np.random.default_rng(4)
    data = encode_keys(PARAMETERS, BINDING, [key(rng, 1), key(rng, 2)])
    with pytest.raises(KeySetError):
        decode_keys(data, PARAMETERS, BINDING, levels)


def test_keys_for_other_levels_than_asked_for_are_refused():
    """By the length where it differs; by the level's field where two keys have changed places."""
    rng = np.random.default_rng(7)
    data = encode_keys(PARAMETERS, BINDING, [key(rng, 1, 0), key(rng, 2, 2)])
    for levels in ({1: 0, 2: 1}, {1: 2, 2: 2}, {1: 0, 2: 0}):
        with pytest.raises(FrameLengthError):
            decode_keys(data, PARAMETERS, BINDING, levels)
    with pytest.raises(KeySetError, match="step 1 must be for use up to level 2"):
        decode_keys(data, PARAMETERS, BINDING, {1: 2, 2: 0})


def test_keys_out_of_order_or_twice_are_refused():
    rng = np.random.default_rng(5)
    one, two = (encode_keys(PARAMETERS, BINDING, [key(rng, step)])[HEADER_LENGTH:] for step in (1, 2))
    head = encode_keys(PARAMETERS, BINDING, [key(rng, 1), key(rng, 2)])[:HEADER_LENGTH]
    assert len(decode_keys(head + one + two, PARAMETERS, BINDING, {1: 2, 2: 2})) == 2
    for body in (two + one, one + one):
        with pytest.raises(KeySetError):
            decode_keys(head + body, PARAMETERS, BINDING, {1: 2, 2: 2})


def test_an_error_echoes_no_bytes_of_the_frame():
    rng = np.random.default_rng(6)
    secret = b"private!" * 8
    frame = CiphertextFrame(2, SCALE, residues(rng, PARAMETERS.primes_at(2)), seed=Seed(secret, prng=7))
    with pytest.raises(FrameError) as caught:
        decode(encode_ciphertexts(PARAMETERS, BINDING, [frame]), count=1)
    assert "private" not in str(caught.value)


def test_the_document_says_what_the_tables_say():
    document = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text(encoding="utf-8")
    for field in HEADER:
        assert f"| {field.offset} | {field.size} | {field.name} |" in document
    parameters = Parameters.create(8192, [28, *[26] * 6], 30)
    assert f"{ciphertexts_length(parameters, count=1, level=6, seeded=True):,} bytes" in document
    for level in (6, 1):
        assert f"{key_length(parameters, level):,} bytes" in document

"""SEAL's own format, written and read by us: byte for byte what SEAL writes."""

import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from rings import insecure_ring, tiny_parameters
from tenseal import sealapi

from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.seal import LIBRARY_VERSION, from_bytes
from heinfer.ckks.secret import SecretSide
from heinfer.errors import BackendError, FormatError
from heinfer.formats import seal_layout as layout
from heinfer.formats.residues import CiphertextFrame, KeyFrame, Seed
from heinfer.formats.seal_reader import read_ciphertext, read_key
from heinfer.formats.seal_writer import write_ciphertext, write_keys

PARAMETERS = tiny_parameters()
RING = insecure_ring(PARAMETERS)
SECRET = SecretSide.generate_in(RING)
SCALE = 2.0**26
STEP = 5


def uncompressed(data: bytes) -> bytes:
    """The same object of SEAL without compression: what its own mode `none` would have written."""
    body = zstandard.ZstdDecompressor().decompress(data[layout.HEADER.size :])
    head = layout.HEADER.pack(layout.MAGIC, 16, *LIBRARY_VERSION, layout.MODE_NONE, 0, len(body) + 16)
    return head + body


def seeded() -> bytes:
    return SECRET.encrypt(np.linspace(-1, 1, PARAMETERS.slots), 2, SCALE)


def full() -> bytes:
    """A ciphertext without a seed, as the evaluation side saves it."""
    side = EvaluationSide(RING)
    return side.save_ciphertext(side.load_ciphertext(seeded()))


# Against SEAL's own bytes ----------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_seeded_ciphertext_is_written_as_seal_writes_it(level):
    data = SECRET.encrypt(np.zeros(PARAMETERS.slots), level, SCALE)
    frame = read_ciphertext(data, PARAMETERS)
    assert (frame.level, frame.scale, frame.c1, frame.c0.shape) == (level, SCALE, None, (level + 1, 64))
    assert write_ciphertext(frame, PARAMETERS) == uncompressed(data)


def test_a_full_ciphertext_is_written_as_seal_writes_it():
    data = full()
    frame = read_ciphertext(data, PARAMETERS)
    assert frame.seed is None
    assert write_ciphertext(frame, PARAMETERS) == uncompressed(data)


def test_keys_are_written_as_seal_writes_them():
    data = SECRET.galois_key(STEP)
    frame = read_key(data, PARAMETERS, STEP)
    assert frame.digits.shape == (3, 4, 64)
    assert write_keys([frame], PARAMETERS) == (uncompressed(data), None)
    data = SECRET.relinearization_key()
    assert write_keys([read_key(data, PARAMETERS, 0)], PARAMETERS) == (None, uncompressed(data))


def test_keys_made_one_by_one_make_one_container():
    steps = [1, 2, 16, 31]
    frames = [read_key(SECRET.galois_key(step), PARAMETERS, step) for step in steps]
    galois, _ = write_keys(frames, PARAMETERS)
    assert galois is not None
    assert len(galois) == layout.keys_length(PARAMETERS, slots=64, keys=4)
    side = EvaluationSide(RING)
    side.load_keys(galois, None)
    assert [step for step in range(PARAMETERS.slots) if side.has_step(step)] == steps


def test_no_keys_make_no_container():
    assert write_keys([], PARAMETERS) == (None, None)


def test_ids_are_those_of_seal():
    def word_bytes(words: list[int]) -> bytes:
        return struct.pack("<4Q", *words)

    assert word_bytes(RING.context.key_parms_id()) == PARAMETERS.parameter_id
    assert word_bytes(RING.context.first_parms_id()) == PARAMETERS.parms_id(PARAMETERS.primes_at(2))
    assert word_bytes(RING.context.last_parms_id()) == PARAMETERS.parms_id(PARAMETERS.primes_at(0))


def test_primes_are_those_of_seal():
    for ring_degree, bits in ((64, [28, 26, 26, 30]), (8192, [28, *[26] * 6, 30])):
        *data, special = (modulus.value() for modulus in sealapi.CoeffModulus.Create(ring_degree, bits))
        parameters = tiny_parameters(ring_degree, tuple(bits[:-1]), bits[-1])
        assert (parameters.data_primes, parameters.special_prime) == (tuple(data), special)


# What is written is what is read ---------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), level=st.integers(0, 2), scale=st.floats(1, 2.0**50), is_seeded=st.booleans())
def test_ciphertexts_come_back_as_they_were(seed, level, scale, is_seeded):
    rng = np.random.default_rng(seed)
    bounds = np.array(PARAMETERS.primes_at(level))[:, None]
    c0, c1 = (rng.integers(0, bounds, (level + 1, 64)).astype(np.uint32) for _ in range(2))
    frame = CiphertextFrame(level, scale, c0, **({"seed": Seed(rng.bytes(64))} if is_seeded else {"c1": c1}))
    read = read_ciphertext(write_ciphertext(frame, PARAMETERS), PARAMETERS)
    assert (read.level, read.scale, read.seed) == (level, scale, frame.seed)
    assert np.array_equal(read.c0, c0)
    assert is_seeded or np.array_equal(read.c1, c1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), step=st.integers(0, 31))
def test_keys_come_back_as_they_were(seed, step):
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, np.array(PARAMETERS.primes)[:, None], (3, 4, 64)).astype(np.uint32)
    frame = KeyFrame(step, digits, tuple(Seed(rng.bytes(64)) for _ in range(3)))
    data = next(part for part in write_keys([frame], PARAMETERS) if part is not None)
    read = read_key(data, PARAMETERS, step)
    assert (read.step, read.seeds) == (step, frame.seeds)
    assert np.array_equal(read.digits, digits)


# Hostile bytes ---------------------------------------------------------------------------------

_FIXED = layout.HEADER.size + layout.CIPHERTEXT.size + layout.HEADER.size + layout.ARRAY_COUNT.size


@pytest.mark.parametrize("make", [seeded, full])
def test_every_bit_of_a_ciphertexts_fixed_part_counts(make):
    data = uncompressed(make())
    scale = range(layout.HEADER.size + 57, layout.HEADER.size + 65)
    end = len(data) if make is full else len(data) - 64
    info = () if make is full else range(end - layout.HEADER.size - 1, end)
    for position in (*range(_FIXED), *info):
        if position not in scale:  # any positive finite scale is a ciphertext's; which one, the frame says
            for bit in range(8):
                expect_refusal(flipped(data, position, bit))


def test_every_bit_of_a_key_containers_fixed_part_counts():
    data = uncompressed(SECRET.galois_key(STEP))
    slot = layout.HEADER.size + layout.KEYS.size + layout.galois_slot(PARAMETERS, STEP) * 8
    for position in (*range(slot + 8 + _FIXED), *range(len(data) - 8, len(data))):
        mutated = flipped(data, position, position % 8)
        with pytest.raises(FormatError):
            read_key(mutated, PARAMETERS, STEP)


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def expect_refusal(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_ciphertext(data, PARAMETERS)


@pytest.mark.parametrize("scale", [0.0, -5.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale):
    data = uncompressed(seeded())
    start = layout.HEADER.size + 57
    expect_refusal(data[:start] + struct.pack("<d", scale) + data[start + 8 :])


def test_a_residue_that_is_not_below_its_prime_is_refused():
    data = uncompressed(full())
    for row, prime in enumerate(PARAMETERS.data_primes * 2):
        start = _FIXED + row * 64 * 8
        for word in (prime, 1 << 32, (1 << 64) - 1):
            expect_refusal(data[:start] + struct.pack("<Q", word) + data[start + 8 :])


@pytest.mark.parametrize("make", [seeded, full])
def test_a_wrong_length_is_refused(make):
    for data in (make(), uncompressed(make())):
        for wrong in (data[:-1], data + b"\0", data[:20], data[:3], b""):
            expect_refusal(wrong)
            if len(wrong) >= 16:  # and when the header goes along with it
                expect_refusal(wrong[:8] + struct.pack("<Q", len(wrong)) + wrong[16:])


def test_a_decompression_bomb_is_refused_before_it_grows():
    bomb = zstandard.compress(bytes(1 << 28))
    head = layout.HEADER.pack(layout.MAGIC, 16, *LIBRARY_VERSION, layout.MODE_ZSTD, 0, len(bomb) + 16)
    expect_refusal(head + bomb)
    expect_refusal(head[:5] + b"\1" + head[6:] + bomb)  # zlib is never asked


def test_the_inputs_that_kill_seal_are_refused():
    fixed = layout.CIPHERTEXT.pack(PARAMETERS.parms_id(PARAMETERS.data_primes), 1, 0, 64, 3, SCALE, 1)
    array = layout.HEADER.pack(layout.MAGIC, 16, *LIBRARY_VERSION, 0, 0, 24) + layout.ARRAY_COUNT.pack(0)
    body = fixed + array
    expect_refusal(layout.HEADER.pack(layout.MAGIC, 16, *LIBRARY_VERSION, 0, 0, len(body) + 16) + body)
    key = uncompressed(SECRET.relinearization_key())
    two_slots = key[:48] + struct.pack("<QQ", 2, 0) + key[56:]  # the first slot empty
    with pytest.raises(FormatError):
        read_key(two_slots[:8] + struct.pack("<Q", len(two_slots)) + two_slots[16:], PARAMETERS, 0)


def test_keys_of_another_step_are_refused():
    data = SECRET.galois_key(STEP)
    for step in (0, 1, 6):
        with pytest.raises(FormatError):
            read_key(data, PARAMETERS, step)


def test_what_seal_refuses_is_a_backend_error():
    with pytest.raises(BackendError) as caught:
        from_bytes(sealapi.Ciphertext(), RING.context, b"private bytes")
    assert "private" not in str(caught.value)

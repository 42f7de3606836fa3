"""Parameters, security, and both sides of SEAL: what they encrypt, evaluate and refuse."""

import copy
import os
import pickle
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from rings import insecure_ring, tiny_parameters
from tenseal import sealapi

from heinfer.ckks import secret_file
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.primes import is_prime, ntt_primes
from heinfer.ckks.seal import SEAL_LARGEST_RING, Ring, SealObject
from heinfer.ckks.secret import SecretSide
from heinfer.ckks.security import MAX_LOG_QP_128, log_qp
from heinfer.errors import (
    BackendError,
    FormatError,
    InsecureParametersError,
    MissingKeyError,
    NewerFormatError,
    ParameterError,
    RangeError,
)
from heinfer.formats.frames import decode_ciphertexts, decode_keys, encode_ciphertexts, encode_keys
from heinfer.formats.seal_reader import read_ciphertext, read_key
from heinfer.formats.seal_writer import write_ciphertext, write_keys

TINY = insecure_ring(tiny_parameters())
SCALE = 2.0**26
BINDING = bytes(range(32))


@pytest.fixture(scope="module")
def secure_parameters() -> Parameters:
    return Parameters.create(4096, [28, 26], 30)


class Exchange:
    """A client and a server between which only frames pass."""

    def __init__(self, ring: Ring, steps: list[int]) -> None:
        self.parameters = ring.parameters
        self.secret = SecretSide.generate_in(ring)
        self.side = EvaluationSide(ring)
        frames = [read_key(self.secret.galois_key(step), self.parameters, step) for step in steps]
        frames.append(read_key(self.secret.relinearization_key(), self.parameters, 0))
        upload = encode_keys(self.parameters, BINDING, frames)
        checked = decode_keys(upload, self.parameters, BINDING, dict.fromkeys([0, *steps], self.parameters.top_level))
        self.side.load_keys(*write_keys(checked, self.parameters))

    def upload(self, slots: np.ndarray, level: int, scale: float = SCALE) -> SealObject:
        frame = read_ciphertext(self.secret.encrypt(slots, level, scale), self.parameters)
        data = encode_ciphertexts(self.parameters, BINDING, [frame])
        expected = {"count": 1, "level": level, "scale": scale, "seeded": True}
        (checked,) = decode_ciphertexts(data, self.parameters, BINDING, **expected)
        return self.side.load_ciphertext(write_ciphertext(checked, self.parameters))

    def download(self, ciphertext: SealObject, level: int, scale: float) -> np.ndarray:
        frame = read_ciphertext(self.side.save_ciphertext(ciphertext), self.parameters)
        data = encode_ciphertexts(self.parameters, BINDING, [frame])
        expected = {"count": 1, "level": level, "scale": scale, "seeded": False}
        (checked,) = decode_ciphertexts(data, self.parameters, BINDING, **expected)
        return self.secret.decrypt(write_ciphertext(checked, self.parameters))


@pytest.fixture(scope="module")
def exchange() -> Exchange:
    return Exchange(TINY, [1, 7, 31])


# Round trips through the library ---------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_is_encrypted_is_decrypted(exchange, level):
    x = np.linspace(-1, 1, 32)
    np.testing.assert_allclose(exchange.download(exchange.upload(x, level), level, SCALE), x, atol=1e-5)


@pytest.mark.parametrize("step", [1, 7, 31])
def test_a_rotation_moves_slots_to_the_left(exchange, step):
    x = np.linspace(-1, 1, 32)
    rotated = sealapi.Ciphertext()
    exchange.side.evaluator.rotate_vector(exchange.upload(x, 2), step, exchange.side.galois_keys, rotated)
    np.testing.assert_allclose(exchange.download(rotated, 2, SCALE), np.roll(x, -step), atol=1e-4)


def test_a_square_is_relinearized_and_rescaled(exchange):
    x = np.linspace(-1, 1, 32)
    ciphertext = exchange.upload(x, 2)
    evaluator = exchange.side.evaluator
    evaluator.square_inplace(ciphertext)
    evaluator.relinearize_inplace(ciphertext, exchange.side.relin_keys)
    evaluator.rescale_to_next_inplace(ciphertext)
    scale = SCALE * SCALE / exchange.parameters.data_primes[2]
    np.testing.assert_allclose(exchange.download(ciphertext, 1, scale), x * x, atol=1e-4)


def test_the_evaluation_side_knows_its_keys(exchange):
    assert [step for step in range(-1, 40) if exchange.side.has_step(step)] == [1, 7, 31]
    exchange.side.require_step(7)
    with pytest.raises(MissingKeyError, match="rotation by 8"):
        exchange.side.require_step(8)


def test_an_evaluation_side_without_keys_has_none():
    side = EvaluationSide(TINY)
    assert not side.has_step(1)
    side.load_keys(None, None)
    assert side.galois_keys is None
    assert side.relin_keys is None


def test_keys_that_do_not_load_leave_the_former_ones(exchange):
    galois_keys = exchange.side.galois_keys
    galois = write_keys([read_key(exchange.secret.galois_key(2), exchange.parameters, 2)], exchange.parameters)[0]
    with pytest.raises(BackendError):
        exchange.side.load_keys(galois, b"no key")
    assert exchange.side.galois_keys is galois_keys


def test_two_encryptions_and_two_keys_differ(exchange):
    x = np.zeros(32)
    assert len({exchange.secret.encrypt(x, 2, SCALE) for _ in range(4)}) == 4
    assert SecretSide.generate_in(TINY).galois_key(1) != exchange.secret.galois_key(1)


# What may not be done --------------------------------------------------------------------------


def test_values_that_cannot_be_encrypted_are_refused(exchange):
    secret = exchange.secret
    for slots in (np.zeros(31), np.zeros((1, 32)), np.full(32, np.nan), np.full(32, np.inf)):
        with pytest.raises(ParameterError, match="32 finite slots"):
            secret.encrypt(slots, 2, SCALE)
    for level in (-1, 3):
        with pytest.raises(ParameterError, match=r"outside 0\.\.2"):
            secret.encrypt(np.zeros(32), level, SCALE)
    with pytest.raises(RangeError, match="exceeds the modulus"):
        secret.encrypt(np.full(32, 2.5), 0, SCALE)


@pytest.mark.parametrize("step", [0, -1, 32])
def test_steps_out_of_range_have_no_key(exchange, step):
    with pytest.raises(ParameterError, match=r"1\.\.31"):
        exchange.secret.galois_key(step)


def test_bytes_that_are_no_ciphertext_are_a_backend_error(exchange):
    with pytest.raises(BackendError, match="SEAL failed to load"):
        exchange.secret.decrypt(b"nothing")


def test_a_secret_key_is_neither_shown_nor_copied(exchange):
    assert repr(exchange.secret) == "<SecretSide N=64>"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never copied or pickled"):
            leak(exchange.secret)


def test_insecure_parameters_open_no_ring():
    tiny = tiny_parameters()
    for make in (Ring.secure, SecretSide.generate, EvaluationSide.create):
        with pytest.raises(InsecureParametersError, match="not in the security table"):
            make(tiny)
    too_many_bits = tiny_parameters(4096, (28, 26, 26), 30)
    with pytest.raises(InsecureParametersError, match="106"):
        Ring.secure(too_many_bits)


def test_a_ring_beyond_seals_own_table_encrypts_too_if_it_is_secure():
    assert max(MAX_LOG_QP_128) == 2 * SEAL_LARGEST_RING
    parameters = Parameters.create(2 * SEAL_LARGEST_RING, [28, 26], 30)
    secret = SecretSide.generate(parameters)
    values = np.random.default_rng(0).uniform(-1, 1, parameters.slots)
    assert np.abs(secret.decrypt(secret.encrypt(values, 1, 2.0**26)) - values).max() < 1e-3
    too_many_bits = tiny_parameters(2 * SEAL_LARGEST_RING, (30,) * 59, 30)
    with pytest.raises(InsecureParametersError, match="1747"):
        Ring.secure(too_many_bits)


def test_the_server_side_imports_no_secret():
    program = (
        "import sys, heinfer.ckks.evaluation, heinfer.formats.bundle, heinfer.formats.frames, "
        "heinfer.formats.seal_reader, heinfer.formats.seal_writer\n"
        "assert not [name for name in sys.modules if 'secret' in name and name.startswith('heinfer')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ring_degree", "limit"), sorted(MAX_LOG_QP_128.items()))
def test_the_security_table_binds(ring_degree, limit):
    sizes = [28] * (limit // 28)
    assert Parameters.create(ring_degree, sizes[1:], 28).log_qp <= limit
    with pytest.raises(InsecureParametersError):
        Parameters.create(ring_degree, sizes, 30)


def test_the_reference_parameters_are_secure():
    parameters = Parameters.create(8192, [28, *[26] * 6], 30)
    assert parameters.log_qp <= 214 == parameters.security_limit
    assert parameters.top_level == 6
    assert Ring.secure(parameters).context.parameters_set()


def test_malformed_parameters_are_refused():
    q1, q2, special = ntt_primes(64, [26, 26, 30])
    for degree, data, p in ((63, [q1], special), (64, [], special), (64, [q1, q1], special), (64, [special], q2)):
        with pytest.raises(ParameterError):
            Parameters(degree, tuple(data), p)
    with pytest.raises(ParameterError):
        Parameters(64, (q1 + 2,), special)


def test_primes_are_prime():
    assert [n for n in range(60) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59]
    assert not is_prime(3215031751)  # a strong pseudoprime to the bases 2, 3, 5 and 7
    with pytest.raises(ParameterError, match="primes of 14 bits"):
        ntt_primes(4096, [14, 14, 14])
    assert 29.9 < log_qp(ntt_primes(64, [30])) < 30


# The secret key's file -------------------------------------------------------------------------


@pytest.fixture
def key_path(secure_parameters, tmp_path) -> Path:
    path = tmp_path / "key"
    SecretSide.generate(secure_parameters).save(path)
    return path


def test_a_saved_key_decrypts_what_it_encrypted(secure_parameters, tmp_path):
    secret = SecretSide.generate(secure_parameters)
    path = tmp_path / "key"
    umask = os.umask(0)
    try:
        secret.save(path)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
    loaded = SecretSide.load(path)
    assert loaded.parameters == secure_parameters
    assert loaded.fingerprint() == secret.fingerprint() != SecretSide.generate(secure_parameters).fingerprint()
    x = np.linspace(-1, 1, 2048)
    np.testing.assert_allclose(loaded.decrypt(secret.encrypt(x, 1, SCALE)), x, atol=1e-4)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_that_others_may_touch_is_refused(key_path, mode):
    key_path.chmod(mode)
    with pytest.raises(FormatError, match="chmod 600"):
        SecretSide.load(key_path)


def test_a_pipe_is_no_key_and_is_not_waited_for(key_path):
    key_path.unlink()
    os.mkfifo(key_path, 0o600)
    with pytest.raises(FormatError, match="is no file"):
        SecretSide.load(key_path)


def test_a_damaged_key_is_refused(key_path):
    good = key_path.read_bytes()
    for damaged in (b"", good[:5], good[:40], good[:-1], good + b"\0", b"x" + good[1:], good[:100] + b"x" + good[101:]):
        key_path.write_bytes(damaged)
        with pytest.raises(FormatError):
            SecretSide.load(key_path)


def test_sizes_inside_a_key_file_are_checked(key_path):
    body = key_path.read_bytes()[:-32]
    # version, both numbers of primes, form, time (its highest byte), protection and length of the key
    for position in (*range(8, 10), *range(14, 26), 45, *range(46, 82), *range(82, 90)):
        changed = body[:position] + bytes([body[position] ^ 0x80]) + body[position + 1 :]
        key_path.write_bytes(changed + sha256(changed).digest())
        with pytest.raises(FormatError):
            SecretSide.load(key_path)


def test_a_key_file_of_version_1_is_read(key_path):
    """It had one number of primes, the special one among them, in place of two numbers and the form."""
    body = key_path.read_bytes()[:-32]
    primes = int.from_bytes(body[14:18], "little") + 1
    assert_older_is_read(
        key_path, body[:8] + b"\1\0" + body[10:14] + primes.to_bytes(4, "little") + body[26:38] + body[82:]
    )


def test_a_key_file_of_version_3_is_read(key_path):
    """It had neither time nor protection."""
    body = key_path.read_bytes()[:-32]
    assert_older_is_read(key_path, body[:8] + b"\3\0" + body[10:38] + body[82:])


def assert_older_is_read(key_path: Path, older: bytes) -> None:
    before = SecretSide.load(key_path)
    key_path.write_bytes(older + sha256(older).digest())
    loaded = SecretSide.load(key_path)
    assert (loaded.parameters, loaded.fingerprint()) == (before.parameters, before.fingerprint())
    assert secret_file.read(key_path).created == 0


@pytest.mark.parametrize("position", [18, 22])
def test_a_key_file_with_roles_that_only_a_newer_heinfer_knows_says_so(key_path, position):
    body = key_path.read_bytes()[:-32]
    changed = body[:position] + b"\2" + body[position + 1 :]
    key_path.write_bytes(changed + sha256(changed).digest())
    with pytest.raises(NewerFormatError, match="upgrade heinfer"):
        SecretSide.load(key_path)


def test_a_newer_key_file_says_so(key_path):
    data = bytearray(key_path.read_bytes())
    data[8] = secret_file.VERSION + 1
    key_path.write_bytes(data)
    with pytest.raises(NewerFormatError, match="upgrade"):
        SecretSide.load(key_path)


def test_an_insecure_key_file_is_refused(key_path):
    tiny = SecretSide.generate_in(TINY)
    tiny.save(key_path)
    with pytest.raises(InsecureParametersError, match=str(key_path)):
        SecretSide.load(key_path)


def test_a_key_that_cannot_be_put_in_place_leaves_nothing(secure_parameters, tmp_path):
    occupied = tmp_path / "key"
    occupied.mkdir()
    (occupied / "file").touch()
    with pytest.raises(OSError, match="key"):
        SecretSide.generate(secure_parameters).save(occupied)
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]

"""The file of a secret key that a passphrase, or the system's keyring, keeps from who reads it."""

import builtins
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import keyring
import keyring.backends.fail
import keyring.backends.null
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keyrings import InMemory, keyring_in_memory

from heinfer.ckks import protection, secret_file
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.protection import Keyring, Kind, Passphrase
from heinfer.ckks.secret import SecretSide
from heinfer.errors import (
    FormatError,
    HeinferError,
    KeyProtectionError,
    KeyringError,
    NewerFormatError,
    PassphraseRequiredError,
    SettingError,
    WrongPassphraseError,
)

SECRET = SecretSide.generate(Parameters.create(4096, [28, 24, 24], 30))
OTHER = SecretSide.generate(SECRET.parameters)
SEAL_AT = 26 + 4 * 4 + 8  # after preamble, sizes, primes and time
WORK_AT = SEAL_AT + 4


@pytest.fixture
def in_haste(monkeypatch) -> None:
    monkeypatch.setattr(protection, "WORK", protection.WORKS.start)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "key"


@pytest.fixture
def ring() -> Iterator[InMemory]:
    with keyring_in_memory() as ring:
        yield ring


@pytest.fixture
def protected(in_haste, path) -> Path:
    SECRET.save(path, Passphrase("correct horse"))
    return path


def resealed(path: Path, position: int, byte: bytes) -> None:
    """Change a file, and its digest after it, as somebody would who means to."""
    body = path.read_bytes()[:-32]
    changed = body[:position] + byte + body[position + len(byte) :]
    path.write_bytes(changed + sha256(changed).digest())


def holds_the_key(path: Path, clear: bytes) -> bool:
    data = path.read_bytes()
    return any(clear[start : start + 16] in data for start in range(0, len(clear) - 15, 16))


# Passphrases -----------------------------------------------------------------------------------


def test_a_protected_key_is_not_in_its_file_and_is_what_it_was(path):
    """At the cost that users get."""
    SECRET.save(path)
    clear = secret_file.read(path).key(None)
    assert holds_the_key(path, clear)
    SECRET.save(path, Passphrase("correct horse"))
    assert not holds_the_key(path, clear)
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret_file.read(path).seal.work == 17
    assert SecretSide.load(path, Passphrase("correct horse")).fingerprint() == SECRET.fingerprint()


def test_two_files_of_one_key_and_passphrase_have_nothing_in_common(protected, tmp_path):
    SECRET.save(tmp_path / "other", Passphrase("correct horse"))
    first, second = secret_file.read(protected), secret_file.read(tmp_path / "other")
    assert first.seal.salt != second.seal.salt
    assert first.seal.nonce != second.seal.nonce
    assert first.body[:16] != second.body[:16]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_passphrase_and_another_is_not_it(in_haste, path, text):
    SECRET.save(path, Passphrase(text))
    assert SecretSide.load(path, Passphrase(text)).fingerprint() == SECRET.fingerprint()
    before = path.read_bytes()
    for other in (text + "x", "x" + text):
        with pytest.raises(WrongPassphraseError, match=r"is not that of .*key, or the file was changed: if it is lost"):
            SecretSide.load(path, Passphrase(other))
    assert path.read_bytes() == before


def test_a_passphrase_is_the_same_however_a_keyboard_composes_it(in_haste, path):
    SECRET.save(path, Passphrase("caf\u00e9"))
    assert SecretSide.load(path, Passphrase("cafe\u0301")).fingerprint() == SECRET.fingerprint()


@pytest.mark.parametrize("text", ["", "x" * 1025, b"bytes", None, 7, "\ud800"])
def test_what_is_no_passphrase_is_refused(text):
    with pytest.raises(SettingError, match="passphrase"):
        Passphrase(text)


def test_it_shows_nothing_of_itself(protected):
    assert "correct horse" not in repr(Passphrase("correct horse")) + repr(vars(secret_file.read(protected)))
    assert "body" not in repr(secret_file.read(protected))


@pytest.mark.parametrize(
    ("kind", "said", "error", "words"),
    [
        (Kind.PASSPHRASE, None, PassphraseRequiredError, "give it as keys_passphrase="),
        (Kind.PASSPHRASE, Kind.KEYRING, KeyProtectionError, "not by the keyring: give it as"),
        (Kind.KEYRING, None, KeyProtectionError, "say keys_keyring=True"),
        (Kind.KEYRING, Kind.PASSPHRASE, KeyProtectionError, "say keys_keyring=True"),
        (Kind.CLEAR, Kind.PASSPHRASE, KeyProtectionError, "is not protected, .* `heinfer keys protect"),
        (Kind.CLEAR, Kind.KEYRING, KeyProtectionError, "is not protected, .* `heinfer keys protect"),
    ],
)
def test_a_file_that_is_protected_otherwise_than_was_said_is_refused(in_haste, ring, path, kind, said, error, words):
    """One in clear, too: who can write the file might have put a key of his own in the place of the protected one."""

    def of(kind: Kind | None) -> Passphrase | Keyring | None:
        return {Kind.PASSPHRASE: lambda: Passphrase("x"), Kind.KEYRING: Keyring}.get(kind, lambda: None)()

    SECRET.save(path, of(kind))
    before = path.read_bytes()
    with pytest.raises(error, match=words) as caught:
        SecretSide.load(path, of(said))
    assert caught.value.code in ("key-protection", "passphrase-required")
    assert path.read_bytes() == before


# Hostile files ---------------------------------------------------------------------------------


def test_whatever_is_changed_in_a_protected_file_it_does_not_open(protected):
    good = protected.read_bytes()
    body = good[:-32]
    positions = [*range(SEAL_AT + 36 + 8), *range(SEAL_AT + 44, len(body), 997), len(body) - 1]
    for position in positions:
        protected.write_bytes(good)
        resealed(protected, position, bytes([body[position] ^ 1]))
        with pytest.raises(HeinferError) as caught:
            SecretSide.load(protected, Passphrase("correct horse"))
        assert isinstance(caught.value, FormatError | KeyProtectionError | SettingError) or position < SEAL_AT


@pytest.mark.parametrize("work", [0, 1, 13, 19, 30, 63, 64, 2**32 - 1])
def test_a_cost_that_takes_the_machines_memory_or_protects_nothing_is_refused(protected, work):
    resealed(protected, WORK_AT, work.to_bytes(4, "little"))
    with pytest.raises(FormatError, match=r"a cost of 2\^14 to 2\^18 is accepted, not 2\^"):
        SecretSide.load(protected, Passphrase("correct horse"))


def test_a_protection_of_a_newer_heinfer_says_so(protected):
    resealed(protected, SEAL_AT, (3).to_bytes(4, "little"))
    with pytest.raises(NewerFormatError, match="upgrade heinfer"):
        SecretSide.load(protected, Passphrase("correct horse"))


@pytest.mark.parametrize("length", [0, 5, 40, 100, 5000, -1])
def test_a_protected_file_that_was_cut_is_damaged(protected, length):
    protected.write_bytes(protected.read_bytes()[:length])
    with pytest.raises(FormatError):
        SecretSide.load(protected, Passphrase("correct horse"))


# The keyring -----------------------------------------------------------------------------------


def test_a_keyring_holds_what_opens_the_file(ring, path):
    SECRET.save(path, Keyring())
    (entry,) = ring.entries.values()
    assert len(bytes.fromhex(entry)) == 32
    assert SecretSide.load(path, Keyring()).fingerprint() == SECRET.fingerprint()
    path.rename(path.with_name("moved"))
    assert SecretSide.load(path.with_name("moved"), Keyring()).fingerprint() == SECRET.fingerprint()


def test_a_key_that_is_replaced_while_it_is_read_is_read_anew(ring, path, monkeypatch):
    SECRET.save(path, Keyring())
    get = ring.get_password

    def replaced_before(*names: str) -> str | None:
        monkeypatch.setattr(ring, "get_password", get)
        OTHER.save(path, Keyring())  # as another process does between the file and the keyring
        return get(*names)

    monkeypatch.setattr(ring, "get_password", replaced_before)
    assert SecretSide.load(path, Keyring()).fingerprint() == OTHER.fingerprint()


def test_what_is_written_over_opens_no_more(ring, path):
    SECRET.save(path, Keyring())
    former, before = path.read_bytes(), dict(ring.entries)
    SECRET.save(path, Keyring())
    assert len(ring.entries) == 1
    assert ring.entries.keys() != before.keys()
    path.write_bytes(former)
    with pytest.raises(KeyringError, match="has nothing for this file"):
        SecretSide.load(path, Keyring())


def test_a_keyring_that_does_not_serve_is_named_and_nothing_is_written(ring, path):
    ring.is_locked = True
    with pytest.raises(KeyringError, match=r"does not serve \(KeyringLocked\): unlock it, or use a passphrase"):
        SECRET.save(path, Keyring())
    assert not path.exists()
    for backend in (keyring.backends.fail.Keyring(), keyring.backends.null.Keyring()):
        keyring.set_keyring(backend)
        with pytest.raises(KeyringError):
            SECRET.save(path, Keyring())
    assert list(path.parent.iterdir()) == []


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_in_the_keyring(ring, tmp_path):
    (tmp_path / "key" / "occupied").mkdir(parents=True)
    with pytest.raises(OSError, match="key"):
        SECRET.save(tmp_path / "key", Keyring())
    assert ring.entries == {}
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


# Converting, removing, missing packages --------------------------------------------------------


@pytest.mark.parametrize("kind", [lambda: Passphrase("x"), Keyring])
def test_a_clear_file_is_protected_in_its_place(in_haste, ring, path, kind):
    SECRET.save(path)
    created = secret_file.read(path).created
    secret_file.protect(path, kind())
    assert SecretSide.load(path, kind()).fingerprint() == SECRET.fingerprint()
    assert secret_file.read(path).created == created > 1e9
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]
    with pytest.raises(KeyProtectionError, match="is protected already"):
        secret_file.protect(path, kind())


def test_a_conversion_that_is_cut_short_leaves_the_file(in_haste, path, monkeypatch):
    SECRET.save(path)
    before = path.read_bytes()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        secret_file.protect(path, Passphrase("x"))
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_removing_a_file_removes_what_the_keyring_has_and_nothing_else(ring, path, tmp_path):
    SECRET.save(path, Keyring())
    secret_file.remove(path)
    assert ring.entries == {}
    assert not path.exists()
    path.write_bytes(b"something else")
    path.chmod(0o600)
    with pytest.raises(FormatError):
        secret_file.remove(path)
    assert path.exists()


@pytest.mark.parametrize(
    ("package", "kind"),
    [("cryptography", lambda: Passphrase("x")), ("cryptography", Keyring), ("keyring", Keyring)],
)
def test_a_package_that_is_missing_is_named_with_the_extra_that_has_it(package, kind, monkeypatch):
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingError, match=rf"^{package} is not installed: pip install 'heinfer\[protected\]'$"):
        kind()

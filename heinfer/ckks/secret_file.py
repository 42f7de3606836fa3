"""The file of a secret key: a small versioned container that only its owner may read.

Little-endian: magic, u16 version, u32 N, u32 number of data primes, u32 number of special primes, u32 form of the key
(1: SEAL's bytes), the primes as u32, special ones last, u64 time at which the key was made (seconds since 1970, 0: not
known), u32 how it is kept (0: in clear, 1: by a passphrase, 2: by the keyring), u32 scrypt's cost as a power of two,
16 bytes of salt or name, 12 of nonce (all zero in clear), u64 length of the key, the key, SHA-256 of all before it
(against damage; it proves nothing of the origin).

A protected key is encrypted by AES-256-GCM, all before it being associated data. Version 3 had neither time nor
protection, version 1 moreover the number of all primes, one of them special, in place of both numbers and the form.
Both are read.
"""

from __future__ import annotations

import os
import stat
import struct
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

from heinfer.ckks.parameters import MAX_PRIMES, Parameters
from heinfer.ckks.protection import Keyring, Kind, Protection, Seal, decrypted, encrypted
from heinfer.errors import (
    FormatError,
    KeyProtectionError,
    KeyringError,
    NewerFormatError,
    ParameterError,
    PassphraseRequiredError,
    SettingError,
    WrongPassphraseError,
)
from heinfer.system import AT_ONCE, HAS_OWNERS

VERSION = 4

_MAGIC = b"heinfsk\0"
_PREAMBLE = struct.Struct("<8sH")
_SIZES = struct.Struct("<IIII")
_SIZES_1 = struct.Struct("<II")
_SEAL_FORM = 1
_CREATED = struct.Struct("<Q")
_PROTECTION = struct.Struct("<II16s12s")
_LENGTH = struct.Struct("<Q")
_TAG_BYTES = 16  # of AES-GCM
_DIGEST_BYTES = 32
_MAX_BYTES = 1 << 26
_MAX_TIME = 253402300800  # the year 10000

_HOW_TO_GIVE_ONE = (
    "give it as keys_passphrase= (heinfer: --passphrase-file FILE, HEINFER_KEYS_PASSPHRASE, or on the terminal)"
)
_GIVE_KEYRING = "say keys_keyring=True (heinfer: --keyring)"
_NOT_IN_CLEAR = (
    "on this system the mode of a file keeps nobody out, so a secret key is not kept in clear: protect it by a "
    "passphrase (keys_passphrase=; heinfer: --passphrase-file FILE), or by the keyring (keys_keyring=True; --keyring)"
)
_NEW_KEYS = "if it is lost, remove the file: new keys are made, and nothing else depended on the old ones"


@dataclass(frozen=True, eq=False)
class SecretFile:
    """A file as it was read: its head, and the key as it is kept.

    Attributes:
        path: of the file.
        parameters: of the key, secure.
        created: seconds since 1970; 0 when it is not known.
        seal: how the key is kept.
        head: all before the key.
        body: the key as it is kept.
    """

    path: Path
    parameters: Parameters
    created: int
    seal: Seal
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)

    def key(self, protection: Protection) -> bytes:
        """SEAL's bytes of the key.

        Raises:
            KeyProtectionError: when it is protected otherwise than said, or in clear where the mode of a file keeps
                nobody out; one that is not protected is not taken for one that is, for whoever can write the file might
                have put another in its place.
            PassphraseRequiredError, WrongPassphraseError, KeyringError.
        """
        kind = Kind.CLEAR if protection is None else protection.kind
        if kind is not self.seal.kind:
            raise self._otherwise(kind)
        if protection is None:
            _require_owners(self.path)
            return self.body
        found = decrypted(protection.key(self.seal), self.seal, self.body, self.head)
        if found is None and kind is Kind.KEYRING:
            raise KeyProtectionError(f"{self.path} was changed after it was written: remove it, and new keys are made")
        if found is None:
            raise WrongPassphraseError(
                f"the passphrase is not that of {self.path}, or the file was changed: {_NEW_KEYS}"
            )
        return found

    def _otherwise(self, said: Kind) -> KeyProtectionError:
        if self.seal.kind is Kind.CLEAR:
            return KeyProtectionError(
                f"{self.path} is not protected, as was said it is: `heinfer keys protect {self.path}` does that, if it "
                "is your file"
            )
        if self.seal.kind is Kind.KEYRING:
            return KeyProtectionError(f"{self.path} is protected by the system's keyring: {_GIVE_KEYRING}")
        if said is Kind.CLEAR:
            return PassphraseRequiredError(f"{self.path} is protected by a passphrase: {_HOW_TO_GIVE_ONE}; {_NEW_KEYS}")
        return KeyProtectionError(f"{self.path} is protected by a passphrase, not by the keyring: {_HOW_TO_GIVE_ONE}")


def write(
    path: Path, parameters: Parameters, key: bytes, protection: Protection = None, created: int | None = None
) -> None:
    """Write the file with mode 0600 from its creation on, and put it in place whole.

    Args:
        key: SEAL's bytes.
        created: when the key was made; by default now.

    Raises:
        KeyProtectionError: when it is to be kept in clear where the mode of a file keeps nobody out.
    """
    if protection is None:
        _require_owners(path)
    path = path.resolve()  # a link stays one, and no key is left where it leads
    seal = Seal.clear() if protection is None else protection.new_seal()
    before = _seal_of(path)
    try:
        head = _head(parameters, int(time()) if created is None else created, seal)
        head += _LENGTH.pack(len(key) if protection is None else len(key) + _TAG_BYTES)
        kept = key if protection is None else encrypted(protection.key(seal), seal, key, head)
        put_in_place(path, head + kept + sha256(head + kept).digest())
    except BaseException:
        if protection is not None and _seal_of(path) != seal:  # else it is in place, and the keyring's is needed
            protection.forget(seal)
        raise
    if protection is not None and before is not None and before.kind is protection.kind:
        protection.forget(before)


def read(path: Path) -> SecretFile:
    """Read the file; its key stays as it is kept.

    Raises:
        FormatError: when others may read the file, or it is no secret key, or damaged.
        NewerFormatError: when a newer heinfer wrote it.
        InsecureParametersError, ParameterError: when its parameters are.
    """
    data = _read_private(path)
    magic, version = _unpack(_PREAMBLE, data, 0, path)
    if magic != _MAGIC:
        raise FormatError(f"{path} is no secret key of heinfer")
    if version > VERSION:
        raise NewerFormatError(f"{path} has format {version}, this heinfer reads up to {VERSION}: upgrade heinfer")
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if version not in (1, 3, VERSION) or sha256(body).digest() != digest:
        raise _damaged(path)
    return _parse(version, body, path)


def opened(path: Path, protection: Protection) -> tuple[SecretFile, bytes]:
    """The file and SEAL's bytes of its key; raises what `read` and `SecretFile.key` do."""
    found = read(path)
    try:
        return found, found.key(protection)
    except KeyringError:
        again = read(path)
        if again.seal == found.seal:
            raise
        return again, again.key(
            protection
        )  # another process has put a new key in its place, and had that one forgotten


def protect(path: Path, protection: Protection) -> None:
    """Encrypt the key in a file that has it in clear; KeyProtectionError when it is protected already."""
    found = read(path)
    if found.seal.kind is not Kind.CLEAR:
        raise KeyProtectionError(
            f"{path} is protected already: to have it protected otherwise, delete it (`heinfer keys delete`), and have "
            "new keys made"
        )
    write(path, found.parameters, found.body, protection, found.created)


def remove(path: Path) -> None:
    """Remove a file, and what the keyring holds for it; nothing that is no secret key. Raises what read does."""
    path = path.resolve()
    seal = read(path).seal
    path.unlink()
    if seal.kind is Kind.KEYRING:
        with suppress(KeyProtectionError, SettingError):  # without the file it opens nothing
            Keyring().forget(seal)


def _head(parameters: Parameters, created: int, seal: Seal) -> bytes:
    primes = parameters.primes
    return b"".join(
        [
            _PREAMBLE.pack(_MAGIC, VERSION),
            _SIZES.pack(parameters.ring_degree, len(parameters.data_primes), 1, _SEAL_FORM),
            struct.pack(f"<{len(primes)}I", *primes),
            _CREATED.pack(created),
            _PROTECTION.pack(seal.kind, seal.work, seal.salt, seal.nonce),
        ]
    )


def put_in_place(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, all of it or none; OSError when that cannot be."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp: mode 0600, O_EXCL
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    with suppress(OSError):  # it is in place, if perhaps not yet after a power cut
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _require_owners(path: Path) -> None:
    if not HAS_OWNERS:
        raise KeyProtectionError(f"{path}: {_NOT_IN_CLEAR}")


def _seal_of(path: Path) -> Seal | None:
    """That of a file that is there."""
    try:
        return read(path).seal
    except (OSError, FormatError, ParameterError):
        return None


def _parse(version: int, body: bytes, path: Path) -> SecretFile:
    sizes = _SIZES_1 if version == 1 else _SIZES
    ring_degree, count, *roles = _unpack(sizes, body, _PREAMBLE.size, path)
    if roles and roles != [1, _SEAL_FORM]:
        raise NewerFormatError(f"{path} has several special primes or another form of key: upgrade heinfer")
    count += len(roles[:1])  # version 1 counts the special prime among all
    if not 2 <= count <= MAX_PRIMES:
        raise _damaged(path)
    prime_words = struct.Struct(f"<{count}I")
    start = _PREAMBLE.size + sizes.size
    *data_primes, special_prime = _unpack(prime_words, body, start, path)
    start += prime_words.size
    created, seal = 0, Seal.clear()
    if version == VERSION:
        (created,) = _unpack(_CREATED, body, start, path)
        seal = _seal(_unpack(_PROTECTION, body, start + _CREATED.size, path), path)
        start += _CREATED.size + _PROTECTION.size
    (length,) = _unpack(_LENGTH, body, start, path)
    start += _LENGTH.size
    if start + length != len(body) or created > _MAX_TIME:
        raise _damaged(path)
    try:
        parameters = Parameters.from_primes(ring_degree, data_primes, special_prime)
    except ParameterError as error:
        raise type(error)(f"{path}: {error}") from None
    return SecretFile(path, parameters, created, seal, body[:start], body[start:])


def _seal(fields: tuple[Any, ...], path: Path) -> Seal:
    kind, work, salt, nonce = fields
    if kind not in set(Kind):
        raise NewerFormatError(f"{path} is protected in a way that is not known here: upgrade heinfer")
    try:
        seal = Seal(Kind(kind), work, salt, nonce)
    except FormatError as error:
        raise FormatError(f"{path} is no secret key that heinfer wrote: {error}") from None
    if seal.kind is Kind.CLEAR and seal != Seal.clear():
        raise _damaged(path)
    return seal


def _read_private(path: Path) -> bytes:
    # A pipe would wait for somebody who writes.
    with os.fdopen(os.open(path, os.O_RDONLY | AT_ONCE), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{path} is no file: give the path of a secret key, or of a new file")
        if HAS_OWNERS and stat.S_IMODE(status.st_mode) & 0o077:
            raise FormatError(f"{path} holds a secret key that others may read: chmod 600 it, or make new keys")
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise FormatError(f"{path} is too large to be a secret key")
    return data


def _unpack(form: struct.Struct, data: bytes, start: int, path: Path) -> tuple[Any, ...]:
    if start + form.size > len(data):
        raise _damaged(path)
    return form.unpack_from(data, start)


def _damaged(path: Path) -> FormatError:
    return FormatError(f"{path} is a damaged secret key: make new keys")

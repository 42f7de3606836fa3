"""What keeps a secret key's file from who reads it: a passphrase, or a key that the system's keyring holds.

Key derivation, authenticated encryption and keyrings are those of well-kept libraries, which are imported only where
one of the two is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias
from unicodedata import normalize

from heinfer.errors import FormatError, KeyProtectionError, KeyringError, SettingError
from heinfer.extras import needs

WORK = 17
"""Scrypt's cost: 2^17 blocks of 1 KiB, so 128 MiB and a third of a second for each guess."""

WORKS = range(14, 19)
"""Costs that a file may name: it must not take this machine's memory."""

SALT_BYTES = 16
NONCE_BYTES = 12

_BLOCK = 8  # scrypt's r: blocks of 1 KiB
_KEY_BYTES = 32
_MAX_PASSPHRASE = 1024
_SERVICE = "heinfer secret key"


class Kind(IntEnum):
    """How a secret key is kept; the numbers are those of the file."""

    CLEAR = 0
    PASSPHRASE = 1
    KEYRING = 2


@dataclass(frozen=True)
class Seal:
    """What a file says of how its key is kept, and who has the other part cannot do without.

    Attributes:
        kind: which way.
        work: scrypt's cost, as a power of two; 0 without a passphrase.
        salt: of the passphrase, or the name of the keyring's entry.
        nonce: of the encryption.
    """

    kind: Kind
    work: int
    salt: bytes
    nonce: bytes

    def __post_init__(self) -> None:
        """FormatError for what no heinfer writes."""
        if (self.work in WORKS) if self.kind is Kind.PASSPHRASE else (self.work == 0):
            return
        raise FormatError(f"a cost of 2^{WORKS.start} to 2^{WORKS.stop - 1} is accepted, not 2^{self.work}")

    @classmethod
    def clear(cls) -> Seal:
        return cls(Kind.CLEAR, 0, bytes(SALT_BYTES), bytes(NONCE_BYTES))


class Passphrase:
    """A passphrase of the user's; it shows nothing of it when printed.

    Raises:
        SettingError: when it is empty or no text, or the library is not installed.
    """

    kind = Kind.PASSPHRASE

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not 0 < len(text) <= _MAX_PASSPHRASE:
            raise SettingError(f"a passphrase is text of 1 to {_MAX_PASSPHRASE} characters")
        try:  # however a keyboard composes it
            self._bytes = normalize("NFC", text).encode()
        except UnicodeEncodeError:
            raise SettingError("the passphrase has characters that are none: give it as text in UTF-8") from None
        with needs("protected"):
            import cryptography.hazmat.primitives.kdf.scrypt  # noqa: F401, PLC0415

    def __repr__(self) -> str:
        return "<Passphrase>"

    def new_seal(self) -> Seal:
        return Seal(self.kind, WORK, os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES))

    def key(self, seal: Seal) -> bytes:
        """The key of a seal; KeyProtectionError when this machine has not the memory."""
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # noqa: PLC0415

        try:
            return Scrypt(salt=seal.salt, length=_KEY_BYTES, n=1 << seal.work, r=_BLOCK, p=1).derive(self._bytes)
        except MemoryError:
            raise KeyProtectionError(f"a passphrase needs {1 << (seal.work - 10)} MiB of memory for a moment") from None

    def forget(self, seal: Seal) -> None:
        """Nothing is kept anywhere."""


class Keyring:
    """The keyring of the user's session on this machine, which holds a random key for each file.

    Raises:
        SettingError: when the library is not installed.
        KeyringError: when there is no keyring, or it does not open.
    """

    kind = Kind.KEYRING

    def __init__(self) -> None:
        with needs("protected"):
            import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401, PLC0415
            import keyring  # noqa: F401, PLC0415

    def __repr__(self) -> str:
        return "<Keyring>"

    def new_seal(self) -> Seal:
        """Has the keyring keep a new key."""
        import keyring  # noqa: PLC0415

        seal = Seal(self.kind, 0, os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES))
        with _keyring_errors():
            keyring.set_password(_SERVICE, seal.salt.hex(), os.urandom(_KEY_BYTES).hex())
        return seal

    def key(self, seal: Seal) -> bytes:
        import keyring  # noqa: PLC0415

        with _keyring_errors():
            kept = keyring.get_password(_SERVICE, seal.salt.hex())
        try:
            key = bytes.fromhex(kept or "")
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise KeyringError(
                "the system's keyring has nothing for this file: it is of another machine or user, or was removed there"
            )
        return key

    def forget(self, seal: Seal) -> None:
        """Have the keyring forget the key, if it has one."""
        import keyring  # noqa: PLC0415

        with suppress(KeyringError), _keyring_errors():
            keyring.delete_password(_SERVICE, seal.salt.hex())


Protection: TypeAlias = Passphrase | Keyring | None
"""What a user says that a file is protected by; None: by its mode alone."""


def encrypted(key: bytes, seal: Seal, data: bytes, head: bytes) -> bytes:
    """AES-256-GCM, with the head of the file as associated data."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    return AESGCM(key).encrypt(seal.nonce, data, head)


def decrypted(key: bytes, seal: Seal, data: bytes, head: bytes) -> bytes | None:
    """The reverse; None when key, data and head do not belong together."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    try:
        return AESGCM(key).decrypt(seal.nonce, data, head)
    except InvalidTag:
        return None


@contextmanager
def _keyring_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each system's keyring raises its own beside the library's
        raise KeyringError(
            f"the system's keyring does not serve ({type(error).__name__}): unlock it, or use a passphrase"
        ) from error

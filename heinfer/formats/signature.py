"""Signatures of bundles: Ed25519 (RFC 8032), detached, in a file beside the bundle; keys are PEM files of openssl.

What is signed is a text of its own, which ends with a zero byte, and then the SHA-256 of the bundle's file: no
signature for anything else can be taken for one, and the digest that the service's log names is the one that was
signed. The file `BUNDLE.sig` is the 64 bytes of the signature in Base64, and a line feed.
"""

from __future__ import annotations

import base64
import binascii
import stat
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from heinfer.errors import SettingError, UntrustedBundleError
from heinfer.formats.files import read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_DOMAIN = b"heinfer bundle signature 1\0"
_MAX_KEY_BYTES = 1 << 14
_MAX_SIGNATURE_BYTES = 1 << 8
_PRIVATE = b"PRIVATE KEY"
_BEGIN = b"-----BEGIN "
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_NOT_INSTALLED = "signatures need a library that is not installed: pip install 'heinfer[signing]'"


def digest_of_file(data: bytes) -> str:
    """Hexadecimal SHA-256 of the bytes of a bundle's file: what logs call it by, and sha256sum prints."""
    return sha256(data).hexdigest()


def signature_path(bundle: Path) -> Path:
    """Where a bundle's signature is."""
    return bundle.with_name(f"{bundle.name}.sig")


def signed(data: bytes, key: Path, passphrase: Callable[[], str]) -> bytes:
    """The content of the signature's file, for the bytes of a bundle's file.

    Args:
        passphrase: asked only if the key has one.

    Raises:
        SettingError: when the key cannot be read, others may read it, or it is no private Ed25519 key.
    """
    return base64.b64encode(_private_key(key, passphrase).sign(_message(data))) + b"\n"


def signer_of(bundle: Path, data: bytes, trusted: Sequence[Path]) -> Path:
    """Which of the trusted public keys has signed the bytes of a bundle's file.

    Args:
        data: the bytes that will be read as a bundle: nothing is read of the file again.

    Raises:
        UntrustedBundleError: when there is no signature, or it is none of these bytes by a trusted key.
        SettingError: when a key cannot be read, or is no public Ed25519 key.
    """
    keys = [(path, public_key(path)) for path in trusted]
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - without keys nobody needs the library

    signature = _signature(bundle)
    for path, key in keys:
        try:
            key.verify(signature, _message(data))
        except InvalidSignature:
            continue
        return path
    raise UntrustedBundleError(
        f"{bundle} is not signed by {' or '.join(map(str, trusted))}: {signature_path(bundle)} is of another key, or "
        "of another bundle: get both again from who compiled it, or trust the key that signed it"
    )


def public_key(path: Path) -> Ed25519PublicKey:
    """A key to trust.

    Raises:
        SettingError: when it cannot be read, or is no public Ed25519 key.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415
    except ModuleNotFoundError:
        raise SettingError(_NOT_INSTALLED) from None
    data = _key_file(path)
    if _PRIVATE in data:
        raise SettingError(
            f"{path} is a private key, which only who signs may have: trust the public one, that `openssl pkey -in KEY "
            "-pubout` writes"
        )
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SettingError(f"{path} is no public Ed25519 key in PEM, as `openssl pkey -in KEY -pubout` writes it")
    return key


def _private_key(path: Path, passphrase: Callable[[], str]) -> Ed25519PrivateKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    except ModuleNotFoundError:
        raise SettingError(_NOT_INSTALLED) from None
    data = _key_file(path)
    try:
        try:
            key = load_pem_private_key(data, password=None)
        except TypeError:  # how the library says that there is a passphrase
            key = load_pem_private_key(data, password=passphrase().encode())
    except UnsupportedAlgorithm:
        key = None
    except ValueError:
        if b"ENCRYPTED" in data:
            raise SettingError(f"{path} does not open with this passphrase") from None
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingError(
            f"{path} is no private Ed25519 key in PEM: `openssl genpkey -algorithm ed25519 -aes256 -out KEY` makes one"
        )
    return key


def _message(data: bytes) -> bytes:
    return _DOMAIN + sha256(data).digest()


def _signature(bundle: Path) -> bytes:
    path = signature_path(bundle)
    try:
        text = read_regular(path, _MAX_SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        raise UntrustedBundleError(
            f"{bundle} is not signed, and only what a trusted key has signed is taken: there is no {path}, which "
            "`heinfer sign` writes"
        ) from None
    except OSError as error:
        raise UntrustedBundleError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return base64.b64decode(text.removesuffix(b"\n"), validate=True)
    except binascii.Error:
        raise UntrustedBundleError(f"{path} is no signature of a bundle: `heinfer sign` writes one") from None


def _key_file(path: Path) -> bytes:
    try:
        data, mode = read_regular(path, _MAX_KEY_BYTES + 1), path.stat().st_mode
    except OSError as error:
        raise SettingError(f"the key {path} cannot be read: {error.strerror}") from None
    if len(data) > _MAX_KEY_BYTES or data.count(_BEGIN) > 1:
        raise SettingError(f"{path} holds more than one key: give a file for each")
    if _PRIVATE in data and mode & _OTHERS:
        raise SettingError(f"{path} holds a private key that others may read: chmod 600 it")
    return data

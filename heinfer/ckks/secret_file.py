"""The file of a secret key: a small versioned container that only its owner may read.

Little-endian: magic, u16 version, u32 N, u32 number of data primes, u32 number of special primes, u32 form of the key
(1: SEAL's bytes), the primes as u32, special ones last, u64 length of the key, the key, SHA-256 of all before it
(against damage; it proves nothing of the origin). Version 1 had the number of all primes, one of them special, in place
of both numbers and the form; it is read.
"""

from __future__ import annotations

import os
import stat
import struct
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from heinfer.ckks.parameters import Parameters
from heinfer.errors import FormatError, NewerFormatError, ParameterError

VERSION = 3

_MAGIC = b"heinfsk\0"
_PREAMBLE = struct.Struct("<8sH")
_SIZES = struct.Struct("<IIII")
_SIZES_1 = struct.Struct("<II")
_SEAL_FORM = 1
_LENGTH = struct.Struct("<Q")
_DIGEST_BYTES = 32
_MAX_BYTES = 1 << 26
_MAX_PRIMES = 64


def write(path: Path, parameters: Parameters, key: bytes) -> None:
    """Write the file with mode 0600 from its creation on, and put it in place whole."""
    primes = parameters.primes
    body = b"".join(
        [
            _PREAMBLE.pack(_MAGIC, VERSION),
            _SIZES.pack(parameters.ring_degree, len(parameters.data_primes), 1, _SEAL_FORM),
            struct.pack(f"<{len(primes)}I", *primes),
            _LENGTH.pack(len(key)),
            key,
        ]
    )
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp: mode 0600, O_EXCL
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body + sha256(body).digest())
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path) -> tuple[Parameters, bytes]:
    """Return parameters and SEAL bytes of the key.

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
    if version not in (1, VERSION) or sha256(body).digest() != digest:
        raise _damaged(path)
    return _parse(version, body, path)


def _parse(version: int, body: bytes, path: Path) -> tuple[Parameters, bytes]:
    sizes = _SIZES_1 if version == 1 else _SIZES
    ring_degree, count, *roles = _unpack(sizes, body, _PREAMBLE.size, path)
    if roles and roles != [1, _SEAL_FORM]:
        raise NewerFormatError(f"{path} has several special primes or another form of key: upgrade heinfer")
    count += len(roles[:1])  # version 1 counts the special prime among all
    if not 2 <= count <= _MAX_PRIMES:
        raise _damaged(path)
    prime_words = struct.Struct(f"<{count}I")
    start = _PREAMBLE.size + sizes.size
    *data_primes, special_prime = _unpack(prime_words, body, start, path)
    start += prime_words.size
    (length,) = _unpack(_LENGTH, body, start, path)
    start += _LENGTH.size
    if start + length != len(body):
        raise _damaged(path)
    try:
        return Parameters.from_primes(ring_degree, data_primes, special_prime), body[start:]
    except ParameterError as error:
        raise type(error)(f"{path}: {error}") from None


def _read_private(path: Path) -> bytes:
    # A pipe would wait for somebody who writes.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{path} is no file: give the path of a secret key, or of a new file")
        if stat.S_IMODE(status.st_mode) & 0o077:
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

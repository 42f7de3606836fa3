"""Files of public data sets: found in the user's folder or fetched once, and checked by what is in them."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heinfer.errors import DataError

DATA_DIR_SETTING = "HEINFER_DATA_DIR"
"""Environment variable: folder that holds ``mnist/*-ubyte.gz`` and ``cifar10/*.bin.xz``."""


@dataclass(frozen=True)
class Content:
    """What a file unpacks to: its name, size and SHA-256.

    Archives of the same data differ in how they were compressed, so nothing is said of the archive.
    """

    name: str
    size: int
    sha256: str

    def is_in(self, unpacked: bytes) -> bool:
        """Whether these are the bytes."""
        return len(unpacked) == self.size and hashlib.sha256(unpacked).hexdigest() == self.sha256


def folder(data_dir: Path | None) -> Path | None:
    """The user's data folder: the one given, or the setting's; None when data are to be fetched."""
    if data_dir is None and os.environ.get(DATA_DIR_SETTING):
        return Path(os.environ[DATA_DIR_SETTING])
    return data_dir


def found(path: Path, files: str) -> Path:
    """Return ``path``; DataError with both ways out when there is no such file. ``files`` names all that belong."""
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: put {files} into {path.parent}, "
            f"or unset {DATA_DIR_SETTING} and give no data folder to have them fetched"
        )
    return path


def fetched(source: str, subfolder: str, name: str, needed: str, known_hash: str | None = None) -> Path:
    """Path in the user's cache of the file ``name``, fetched from ``source`` when it is not there yet.

    ``needed`` says what a data folder would have to hold instead. DataError when it cannot be fetched.
    """
    way_out = f"set {DATA_DIR_SETTING} to a folder that holds {needed}, or run once where {source} can be reached"
    try:
        import pooch  # noqa: PLC0415 - only fetching needs it
    except ImportError:
        raise DataError(f"no data folder is set, and fetching needs pooch (heinfer[train]): {way_out}") from None
    try:
        cache = pooch.os_cache("heinfer") / subfolder
        return Path(pooch.retrieve(source + name, known_hash=known_hash, fname=name, path=cache))
    except Exception as error:  # whatever transport pooch uses, the way out is the same
        raise DataError(f"{source}{name} could not be fetched ({type(error).__name__}): {way_out}") from error


def checked(content: Content, unpack: Callable[[int], bytes], path: Path, cached: bool, whose: str) -> bytes:
    """The bytes in the archive at ``path``, of which ``unpack(most)`` reads no more than ``most``.

    A damaged archive in the cache is removed, so that a new try fetches it. DataError for other bytes.
    """
    try:
        unpacked = unpack(content.size + 1)
    except (OSError, EOFError, KeyError, zlib.error, lzma.LZMAError, tarfile.TarError):
        unpacked = b""
    if content.is_in(unpacked):
        return unpacked
    if cached:
        path.unlink(missing_ok=True)
    way_out = "it was removed, try again" if cached else f"replace it by {whose} own"
    raise DataError(f"{path} does not hold {whose} {content.name} (SHA-256 differs): {way_out}")

"""What is kept of constants in a file that worker processes map: made once, in memory once, there at once.

A page of head (magic, what the words are of, SHA-256 of the words), then the words. A file that is not just that is
written anew: it is a cache, made of a bundle. So is one that somebody else has made or may write, whose results would
be theirs: what the words are of is known to everybody, and a digest beside them proves nothing of the origin.
"""

from __future__ import annotations

import os
import secrets
import stat
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heinfer.errors import SettingError

Words = NDArray[np.uint32]

_HEAD = struct.Struct("<16s32s32s")
_MAGIC = b"heinfer words 02"
_PAGE = 4096


class ConstantsFile:
    """The file of one program's constants.

    Args:
        folder: where such files lie.
        identity: 32 bytes that stand for all that the words depend on.
    """

    def __init__(self, folder: Path, identity: bytes) -> None:
        self._identity = identity
        self.path = folder / f"{identity[:16].hex()}.constants"

    def open(self, words: int) -> Words | None:
        """The mapped words; None when there is no file, or it is not whole, of this program and ours (or root's)."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(self.path, flags), "rb") as file:
                status = os.fstat(file.fileno())
                if not _is_ours(status) or status.st_size != _PAGE + 4 * words:
                    return None
                mapped = np.memmap(file, dtype="<u4", mode="r")
        except (OSError, ValueError):
            return None
        head, body = mapped[: _PAGE // 4], mapped[_PAGE // 4 :]
        expected = _HEAD.pack(_MAGIC, self._identity, sha256(body.data).digest())
        return body if head.tobytes()[: _HEAD.size] == expected else None

    def save(self, words: Words) -> None:
        """Write the words, whole or not at all; SettingError when the folder cannot be written."""
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        head = _HEAD.pack(_MAGIC, self._identity, sha256(words.data).digest())
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o644), "wb") as file:
                file.write(head.ljust(_PAGE, b"\0"))
                file.write(words.data)
            temporary.replace(self.path)
        except OSError as error:
            raise SettingError(
                f"encoded constants cannot be written to {self.path.parent} ({error.strerror}): "
                "name a folder that the service may write, or none"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)


def _is_ours(status: os.stat_result) -> bool:
    owners, others_write = (0, os.geteuid()), stat.S_IWGRP | stat.S_IWOTH
    return stat.S_ISREG(status.st_mode) and status.st_uid in owners and not status.st_mode & others_write

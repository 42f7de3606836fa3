"""Encoded constants in a file that worker processes map: encoded once, in memory once, there at once.

A page of head (magic, what the words are of, SHA-256 of the words), then the words. A file that is not just that is
written anew: it is a cache, made of a bundle, and lies where only the service writes.
"""

from __future__ import annotations

import secrets
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heinfer.errors import SettingError

Words = NDArray[np.uint32]

_HEAD = struct.Struct("<16s32s32s")
_MAGIC = b"heinfer words 01"
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
        """The mapped words; None when there is no file, or it is not whole and of this program."""
        try:
            if self.path.stat().st_size != _PAGE + 4 * words:
                return None
            mapped = np.memmap(self.path, dtype="<u4", mode="r")
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
            with temporary.open("xb") as file:
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

"""A frame of keys as an open file: a worker gets its descriptor, and needs no right to any folder."""

from __future__ import annotations

import mmap
import os
from hashlib import sha256

from heinfer_server.sealed import open_sealed

_PIECE = 1 << 20


class FrameFile:
    """Bytes that nobody changes, behind a descriptor for reading; it is closed when nobody holds this any more.

    Attributes:
        length: bytes of the frame.
    """

    def __init__(self, descriptor: int, length: int) -> None:
        self._descriptor = descriptor
        self.length = length

    @classmethod
    def of(cls, frame: bytes) -> FrameFile:
        """A copy of a frame, in memory."""
        return cls(open_sealed("heinfer-keys", frame), len(frame))

    def fileno(self) -> int:
        return self._descriptor

    def mapped(self) -> mmap.mmap:
        """The frame; ValueError when the file is shorter than that."""
        return mmap.mmap(self._descriptor, self.length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)

    def digest(self) -> str:
        """Hexadecimal SHA-256 of all there is; OSError where a mapping that cannot be read would end the process."""
        hashed, at = sha256(), 0
        while piece := os.pread(self._descriptor, _PIECE, at):
            hashed.update(piece)
            at += len(piece)
        return hashed.hexdigest()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

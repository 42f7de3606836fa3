"""Sealed anonymous files: no process that holds one can change what the others read."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import BinaryIO

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def open_sealed(name: str, content: bytes | Callable[[BinaryIO], None]) -> int:
    """A descriptor for reading a file of this content, or of what is written when it is called with the file."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(descriptor, "wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)

"""Files that somebody else may have put where they are."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from heinfer.system import AT_ONCE


def read_regular(path: Path, most: int) -> bytes:
    """At most so many bytes of a file.

    Raises:
        OSError: when it cannot be read, or is no regular file: a pipe would keep its reader waiting.
    """
    descriptor = os.open(path, os.O_RDONLY | AT_ONCE)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(most)

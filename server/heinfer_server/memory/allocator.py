"""How the C library keeps memory that was freed."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 1 << 20


def give_back_large_blocks() -> None:
    """Have blocks of a MiB and more go back to the system as soon as they are freed, in this process.

    Left alone, glibc takes ever larger ones from the heaps of threads, mallopt(3), and those keep them: keys of ten
    megabytes that come and go then leave the service at several times what it holds. Other C libraries have no such
    call.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)

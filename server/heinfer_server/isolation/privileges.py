"""Rights and resources that a process gives up for good."""

from __future__ import annotations

import os
import resource
import signal
import struct
from contextlib import suppress
from pathlib import Path

from heinfer_server.isolation.kernel import prctl, set_capabilities

_SET_PDEATHSIG, _SET_DUMPABLE, _SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h
_CAPBSET_DROP, _CAP_AMBIENT, _AMBIENT_CLEAR = 24, 47, 4
_CAPABILITY_VERSION = 0x20080522
_SETS_BYTES = 24
_MOST_CAPABILITIES = 64
_STACK_BYTES, _HEAP_BYTES = (
    1 << 23,
    1 << 28,
)  # of a thread; of its heap, as glibc asks for it, and files that are mapped


def hide() -> None:
    """Have no process without special rights trace this one, read its memory or its open files, or get its core."""
    prctl(_SET_DUMPABLE, 0)


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent, of that id, ends; at once when it has ended already.

    The kernel looks at the thread that made this process: it has to last as long as the parent does.
    """
    prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def drop_capabilities() -> None:
    """Be no more than the user, also where that is root, and never become more."""
    for capability in range(_MOST_CAPABILITIES):
        with suppress(OSError):  # there are not so many, or this process may not: it has none then
            prctl(_CAPBSET_DROP, capability)
    with suppress(OSError):  # of kernels before 4.3
        prctl(_CAP_AMBIENT, _AMBIENT_CLEAR)
    set_capabilities(struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(_SETS_BYTES))
    prctl(_SET_NO_NEW_PRIVS, 1)


def limit(memory: int, files: int, file_bytes: int, threads: int) -> None:
    """Take no more than this from now on, and leave no core.

    Args:
        memory: bytes beside what the process has now.
        files: that may be open.
        file_bytes: of one that is written.
        threads: that there may be: each is given addresses that it does not use.
    """
    pages = Path("/proc/self/statm").read_text().split()
    size, data = (int(pages[field]) * resource.getpagesize() for field in (0, 5))
    for kind, most in (
        (resource.RLIMIT_DATA, data + memory + threads * _STACK_BYTES),
        (resource.RLIMIT_AS, size + memory + (threads + 1) * _HEAP_BYTES),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        lower = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (lower, lower))

"""The system calls that a worker needs to evaluate and to answer, with the arguments that it needs them for.

Whatever is not listed fails: opening, naming or changing files, sockets, programs, other processes, their memory and
signals to them, rights, timers and everything that kernels learn later. Numbers: asm/unistd.h of x86-64 and aarch64.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

NUMBERS: Mapping[str, Mapping[str, int]] = {
    "x86_64": {
        "read": 0, "write": 1, "writev": 20, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10,
        "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24,
        "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "sendto": 44, "recvfrom": 45, "recvmsg": 47,
        "clone": 56, "exit": 60, "fcntl": 72, "gettimeofday": 96, "getrusage": 98, "sigaltstack": 131, "gettid": 186,
        "futex": 202, "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
        "clock_nanosleep": 230, "exit_group": 231, "tgkill": 234, "openat": 257, "set_robust_list": 273,
        "getrandom": 318, "memfd_create": 319, "seccomp": 317, "rseq": 334, "clone3": 435,
    },
    "aarch64": {
        "read": 63, "write": 64, "writev": 66, "close": 57, "fstat": 80, "lseek": 62, "mmap": 222, "mprotect": 226,
        "munmap": 215, "brk": 214, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
        "sched_yield": 124, "mremap": 216, "madvise": 233, "nanosleep": 101, "getpid": 172, "sendto": 206,
        "recvfrom": 207, "recvmsg": 212, "clone": 220, "exit": 93, "fcntl": 25, "gettimeofday": 169, "getrusage": 165,
        "sigaltstack": 132, "gettid": 178, "futex": 98, "sched_getaffinity": 123, "restart_syscall": 128,
        "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "exit_group": 94, "tgkill": 131,
        "openat": 56, "set_robust_list": 99, "getrandom": 278, "memfd_create": 279, "seccomp": 277, "rseq": 293,
        "clone3": 435,
    },
}  # fmt: skip
"""By machine and name."""


@dataclass(frozen=True)
class Masked:
    """A condition on an argument of a call, by its position: these bits of it have this value."""

    argument: int
    mask: int
    value: int


Alternative: TypeAlias = Sequence[Masked]
Rules: TypeAlias = Mapping[str, Sequence[Alternative]]
"""By call, when it is allowed: where all conditions of one alternative hold."""

_ALWAYS: Sequence[Alternative] = ((),)
_WHOLE = 0xFFFFFFFF

_FREE = """
    read write writev close fstat lseek
    brk munmap mremap madvise
    futex sched_yield sched_getaffinity set_robust_list rseq getpid gettid
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday getrusage
    getrandom exit exit_group
""".split()  # noqa: SIM905 - a list of words

_MAP_TYPE, _MAP_GROWSDOWN = 0x0F, 0x100
_OPEN = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_LARGEFILE
"""Flags to read and write files with. O_PATH, which Landlock does not know, would give a descriptor of any file, and
fstat(2) tells its owner, size and dates; O_DIRECTORY and O_NOFOLLOW say what a name is."""
_CLONE_THREAD = 0x00010000 | 0x00000800 | 0x00000100  # CLONE_THREAD, CLONE_SIGHAND, CLONE_VM


def rules(process: int, *, threads: bool, files: bool) -> Rules:
    """What a worker may call.

    Args:
        process: its id.
        threads: whether it makes threads while it evaluates.
        files: whether it makes anonymous files, and opens them by their names in /proc: Landlock keeps all others, but
            what fails for a name that is there is another error than for one that is not.
    """
    one_file = (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_DUPFD_CLOEXEC)  # not who gets a signal of it
    found: dict[str, Sequence[Alternative]] = dict.fromkeys(_FREE, _ALWAYS)
    found |= {
        "fcntl": [(Masked(1, _WHOLE, command),) for command in one_file],
        "mmap": [(Masked(2, mmap.PROT_EXEC, 0), Masked(3, _MAP_TYPE | _MAP_GROWSDOWN, mmap.MAP_PRIVATE))],
        "mprotect": [(Masked(2, mmap.PROT_EXEC, 0),)],
        "recvfrom": [(Masked(3, _WHOLE, 0),)],
        "recvmsg": [(Masked(2, _WHOLE, socket.MSG_CMSG_CLOEXEC),)],
        "sendto": [(Masked(3, _WHOLE, 0),)],
        "tgkill": [(Masked(0, _WHOLE, process),)],  # abort(3)
    }
    if threads:
        found["clone"] = [(Masked(0, _CLONE_THREAD, _CLONE_THREAD),)]
    if files:
        found |= {"openat": [(Masked(2, _WHOLE & ~_OPEN, 0),)], "memfd_create": _ALWAYS}
    return found

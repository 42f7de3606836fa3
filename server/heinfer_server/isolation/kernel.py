"""Calls of the kernel that the standard library has no names for."""

from __future__ import annotations

import ctypes
import os
import platform

MACHINE = platform.machine()

_library = ctypes.CDLL(None, use_errno=True)
_library.syscall.restype = ctypes.c_long


def system_call(number: int, *arguments: int | ctypes.c_void_p | None) -> int:
    """Call the kernel, numbers as long ones; OSError when it refuses."""
    return _checked(_library.syscall(ctypes.c_long(number), *map(_long, arguments)))


def prctl(option: int, *arguments: int) -> int:
    """Change something of this process (prctl(2)); OSError when the kernel refuses."""
    return _checked(_library.prctl(option, *map(_long, (*arguments, 0, 0, 0, 0)[:4])))


def set_capabilities(head: bytes, sets: bytes) -> None:
    """Have no capabilities but these (capset(2)); OSError when the kernel refuses."""
    _checked(_library.capset(*map(ctypes.create_string_buffer, (head, sets))))


def _long(argument: int | ctypes.c_void_p | None) -> ctypes.c_ulong | ctypes.c_void_p | None:
    return ctypes.c_ulong(argument) if isinstance(argument, int) else argument


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)

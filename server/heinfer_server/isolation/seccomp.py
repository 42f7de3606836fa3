"""A filter of system calls (seccomp(2)) as a program of classic BPF; what it does not let through fails with EPERM."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Sequence

from heinfer_server.isolation.calls import NUMBERS, Alternative, Rules
from heinfer_server.isolation.kernel import MACHINE, system_call

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_TSYNC, _SPEC_ALLOW = 1, 4
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000

# linux/bpf_common.h: load a word of the call, mask it, jump when it is equal, return
_LOAD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

_INSTRUCTION = struct.Struct("HBBI")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def is_available() -> bool:
    """Whether this kernel, and who started this process, know filters, and this heinfer the machine's calls."""
    if MACHINE not in NUMBERS:
        return False
    try:
        action = ctypes.byref(ctypes.c_uint32(_ERRNO))
        system_call(NUMBERS[MACHINE]["seccomp"], _GET_ACTION_AVAIL, 0, ctypes.cast(action, ctypes.c_void_p))
    except OSError:
        return False
    return True


def install(rules: Rules) -> None:
    """Let all threads of this process call nothing else from now on; OSError when the kernel refuses."""
    code = filter_code(rules, MACHINE)
    program = _Program(len(code) // _INSTRUCTION.size, code)
    # Without the second flag older kernels slow down all that the process computes: it runs no code but ours.
    pointer = ctypes.cast(ctypes.byref(program), ctypes.c_void_p)
    system_call(NUMBERS[MACHINE]["seccomp"], _SET_MODE_FILTER, _TSYNC | _SPEC_ALLOW, pointer)


def filter_code(rules: Rules, machine: str) -> bytes:
    """Instructions of the filter, for a machine of that name."""
    numbers = NUMBERS[machine]
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
    ]
    for name, alternatives in rules.items():
        block = _block(alternatives)
        code += [_instruction(_JUMP_EQUAL, numbers[name], 0, len(block)), *block]
    # Who makes threads tries the new call first, and the one whose arguments can be seen where that is not there.
    code += [_instruction(_JUMP_EQUAL, numbers["clone3"], 0, 1), _instruction(_RETURN, _ERRNO | errno.ENOSYS)]
    return b"".join([*code, _instruction(_RETURN, _ERRNO | errno.EPERM)])


def _block(alternatives: Sequence[Alternative]) -> list[bytes]:
    """Of one call: return, one way or the other."""
    code: list[bytes] = []
    for conditions in alternatives:
        tests: list[bytes] = []
        for at, condition in enumerate(conditions):
            left = 3 * (len(conditions) - at - 1) + 1  # instructions of this alternative after the test
            tests += [
                _instruction(_LOAD, _ARGUMENTS + 8 * condition.argument),
                _instruction(_AND, condition.mask),
                _instruction(_JUMP_EQUAL, condition.value, 0, left),
            ]
        code += [*tests, _instruction(_RETURN, _ALLOW)]
    return [*code, _instruction(_RETURN, _ERRNO | errno.EPERM)]


def _instruction(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(operation, if_true, if_false, value)

"""No file, no port, no process outside: a Landlock domain (landlock(7)) without a single rule.

What a process has open stays open, and anonymous files in memory belong to no file system that the domain knows.
"""

from __future__ import annotations

import ctypes
import os
import struct

from heinfer_server.isolation.kernel import system_call

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on all machines
_VERSION = 1

_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # how many there are, from a version on
_TCP = 0b11  # from 4 on: bind, connect
_SCOPES = 0b11  # from 6 on: abstract sockets and signals of processes outside


def version() -> int:
    """Of Landlock in this kernel; 0 for none."""
    try:
        return system_call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict() -> None:
    """Have this thread, and those that it makes, reach nothing by a name from now on, as far as this kernel knows.

    Raises:
        OSError: when it refuses.
    """
    found = version()
    files = (1 << max((rights for since, rights in _FILE_RIGHTS.items() if since <= found), default=0)) - 1
    handled = [files, *([_TCP] if found >= 4 else []), *([_SCOPES] if found >= 6 else [])]
    attributes = ctypes.create_string_buffer(struct.pack(f"{len(handled)}Q", *handled), 8 * len(handled))
    ruleset = system_call(_CREATE_RULESET, ctypes.cast(attributes, ctypes.c_void_p), len(attributes), 0)
    try:
        system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)

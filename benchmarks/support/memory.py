"""The memory that this process has, and has had."""

from __future__ import annotations

import re
from pathlib import Path


def peak_bytes() -> int:
    """The most memory so far, or since it was forgotten; not ru_maxrss, which knows of what the process was before."""
    return status_bytes("VmHWM")


def status_bytes(field: str) -> int:
    """Bytes under a field of proc_pid_status(5): VmHWM, the most so far; RssAnon, its own; RssFile, that of files."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024

"""What systems differ in: compiler and client run on macOS and Windows as well, the service on Linux alone."""

from __future__ import annotations

import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from weakref import WeakSet

from heinfer.errors import UnsupportedSystemError

HAS_OWNERS = hasattr(os, "getuid")
"""Whether the mode of a file says who may read it: on Windows every file looks as if all might."""

AT_ONCE = getattr(os, "O_NONBLOCK", 0)
"""Flag to open a file that may be a pipe, without waiting for its other end; Windows has no pipes among files."""


def require_linux() -> None:
    """Refuse to begin what only Linux has all parts of; UnsupportedSystemError elsewhere."""
    if sys.platform != "linux":
        raise UnsupportedSystemError(
            f"the service runs on Linux, and this system is {sys.platform}: serve on a Linux machine or in a "
            "container; to compile, and to call a service that runs elsewhere, works here"
        )


def resident_bytes() -> int:
    """The memory that this process has now; the most it has had where the system says no more."""
    return _status_bytes("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """The most memory that this process has had; 0 on Windows, which does not say.

    On Linux not getrusage(2), whose maximum begins with that of the process which started this one.
    """
    if found := _status_bytes("VmHWM"):
        return found
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ModuleNotFoundError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status_bytes(field: str) -> int:
    """Of proc_pid_status(5); 0 where there is none."""
    with suppress(OSError), Path("/proc/self/status").open() as lines:
        for line in lines:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


class Renewed(ABC):
    """What every forked child begins anew: its parent's threads, one of which may hold a lock, are not there."""

    def __init__(self) -> None:
        _RENEWED.add(self)
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Make locks, and all that only its own process may use."""


_RENEWED: WeakSet[Renewed] = WeakSet()


def _renew_all() -> None:
    for each in _RENEWED:
        each.begin()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_renew_all)


@contextmanager
def scratch_file() -> Iterator[tuple[FileIO, str]]:
    """An empty file and its path, gone afterwards: in memory, or where there are no such files in a folder of ours."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("heinfer", os.MFD_CLOEXEC)
        with FileIO(descriptor, "r+") as file:
            yield file, f"/proc/self/fd/{descriptor}"
    else:
        with tempfile.TemporaryDirectory(prefix="heinfer-") as folder:  # mode 0700
            path = Path(folder) / "object"
            with FileIO(str(path), "x+") as file:
                yield file, str(path)

"""How a worker process shuts itself in, once its models are loaded: what it has open it keeps, and gets no more."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from heinfer_server.isolation import landlock, seccomp
from heinfer_server.isolation.calls import rules
from heinfer_server.isolation.privileges import drop_capabilities, hide, limit

LANDLOCK = "Landlock"
FILTER = "system call filter"

PARTS = {
    LANDLOCK: "files, ports and other processes: Linux 5.13 or newer, with landlock among its LSMs",
    FILTER: "everything but what an evaluation calls: seccomp, on x86-64 or aarch64",
}
"""Parts of the isolation that a kernel may lack, what each keeps from a worker, and what has it."""

_LATE = ("traceback", "linecache", "tokenize", "encodings.ascii", "encodings.latin_1", "encodings.idna", "stringprep")
"""Modules that are imported when something fails: then there is no file to import them from."""

_SPARE_FILES = 6


@dataclass(frozen=True)
class Confinement:
    """What is left to a worker.

    Attributes:
        memory: bytes, beside what it has when its models are loaded.
        threads: that an evaluation takes.
        file_bytes: of an anonymous file; 0 where it makes none.
        parts: names of those that the kernel has; a worker that cannot do without one all the same does not start.
    """

    memory: int
    threads: int
    file_bytes: int
    parts: frozenset[str]

    def enter(self, pipe: int) -> None:
        """Keep nothing open but what is printed to and a pipe, and no right; threads that are made later have none.

        Raises:
            OSError: when the kernel refuses.
            RuntimeError: when there is another thread already, which would keep its rights.
        """
        for module in _LATE:
            import_module(module)
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads > 1:
            raise RuntimeError(f"a library has started {threads - 1} threads, which would keep their rights")
        os.closerange(3, pipe)
        os.closerange(pipe + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        limit(self.memory, pipe + 1 + _SPARE_FILES, self.file_bytes, self.threads + 1)
        drop_capabilities()
        hide()
        if LANDLOCK in self.parts:
            landlock.restrict()

    def lock(self) -> None:
        """Call nothing but what an evaluation needs; no thread is made after this where one is enough."""
        if FILTER in self.parts:
            seccomp.install(rules(os.getpid(), threads=self.threads > 1, files=self.file_bytes > 0))


def available_parts() -> frozenset[str]:
    """Names of the parts that this kernel has, as far as this process may know."""
    found = {LANDLOCK: landlock.version() > 0, FILTER: seccomp.is_available()}
    return frozenset(part for part in PARTS if found[part])

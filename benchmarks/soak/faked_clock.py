"""A wall clock that one process sees, and that jumps when it is told to; time that only passes is left as it is."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_DAY = 86400


@dataclass(frozen=True)
class FakedClock:
    """A file that says how far the wall clock is off, and a library that is preloaded and adds that.

    libfaketime is none for this: with it, CPython's sleep() fails.

    Attributes:
        file: read whenever the process asks for the time.
        library: that it is started with.
    """

    file: Path
    library: Path

    @classmethod
    def made(cls, folder: Path) -> FakedClock | None:
        """Right at first; None where this machine has no C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            return None
        clock = cls(folder / "clock", folder / "faked_clock.so")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(clock.library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        clock.set(0)
        return clock

    @property
    def environment(self) -> dict[str, str]:
        """What a process is to be started with."""
        return {"LD_PRELOAD": str(self.library), "FAKED_CLOCK": str(self.file)}

    def set(self, days: int) -> None:
        """Be so many days ahead, or behind."""
        self.file.write_text(f"{days * _DAY}\n")

"""A wall clock that one process and its children see, and that jumps when it is told to: by libfaketime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_LIBRARY = "faketime/libfaketime.so.1"
_PLACES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")


@dataclass(frozen=True)
class FakedClock:
    """A file that says how far the wall clock is off.

    Attributes:
        file: read anew by the processes, now and then.
        library: that they are started with.
    """

    file: Path
    library: Path

    @classmethod
    def found(cls, file: Path) -> FakedClock | None:
        """Right at first; None where this machine has no libfaketime."""
        for place in _PLACES:
            library = Path(place) / _LIBRARY
            if library.exists():
                clock = cls(file, library)
                clock.set(0)
                return clock
        return None

    @property
    def environment(self) -> dict[str, str]:
        """What processes are to be started with; time that only passes is left as it is."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, days: int) -> None:
        """Be so many days ahead, or behind."""
        self.file.write_text(f"{days:+d}d\n")

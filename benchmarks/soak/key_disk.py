"""A small file system of its own for keys, so that a full disk is a full disk and nobody else's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_FILLER = "filler"
_BLOCK = 1 << 20


class KeyDisk:
    """A tmpfs in a mount namespace, which a process holds open; it outlives the service's restarts.

    Attributes:
        is_own: whether this machine allows it; else the folder is an ordinary one, which cannot be filled.
        keys: folder for the keys, as the service sees it.
    """

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir()
        self.keys = folder / "keys"
        mount = f'mount -t tmpfs -o size={size},mode=0700 none "$1" && echo mounted && exec sleep infinity'
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        self._holder = subprocess.Popen(
            ["unshare", *user, "--mount", "sh", "-c", mount, "sh", str(folder)],  # noqa: S607
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._holder.stdout is not None
        self.is_own = self._holder.stdout.readline() == "mounted\n"
        self._filler = Path(f"/proc/{self._holder.pid}/root{folder / _FILLER}")

    def entered(self, command: Sequence[str]) -> list[str]:
        """A command, as it runs where the file system is."""
        if not self.is_own:
            return list(command)
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._holder.pid), *user, "--mount", *command]

    def fill(self) -> None:
        """Leave not a byte."""
        with self._filler.open("wb", buffering=0) as file:
            for block in (bytes(_BLOCK), b"\0"):
                try:
                    while file.write(block):
                        pass
                except OSError:
                    continue

    def empty(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()

"""Limits of memory that control groups set: of systemd's units, of containers, of groups within groups."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_FILES = {
    "cgroup2": ("memory.max", "memory.high"),  # beyond the second all is slowed down until nothing goes on
    "cgroup": ("memory.limit_in_bytes",),
}
_MOUNT = re.compile(r"^\S+ \S+ \S+ (\S+) (\S+) .* - (cgroup2?) \S+ (\S+)$", re.M)
_OF_ALL_ABOVE = re.compile(r"^hierarchical_memory_limit (\d+)$", re.M)
_OCTAL = re.compile(r"\\(\d{3})")


@dataclass(frozen=True)
class _Mount:
    """Where a tree of groups is mounted.

    Attributes:
        kind: of file system: cgroup2, or cgroup with the controller of memory.
        top: the group that is at `point`.
    """

    kind: str
    top: PurePosixPath
    point: Path


def memory_limits(root: Path = _ROOT) -> Iterator[int]:
    """The limits that hold for this process: of its groups, and of those that they are in, as far as can be seen.

    Args:
        root: where /proc and /sys are.
    """
    mounts = list(_mounts(root))
    for kind, group in _groups(root):
        for mount in mounts:
            if mount.kind == kind:
                for folder in _folders(mount, group):
                    yield from _limits_in(folder, kind)


def _mounts(root: Path) -> Iterator[_Mount]:
    """From lines like `32 31 0:35 /top /point rw - cgroup name rw,memory`, proc_pid_mountinfo(5)."""
    for top, point, kind, options in _MOUNT.findall(_text(root / "proc/self/mountinfo")):
        if kind == "cgroup2" or "memory" in options.split(","):
            yield _Mount(kind, PurePosixPath(_plain(top)), root / _plain(point).lstrip("/"))


def _groups(root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """From lines like `4:memory:/group`, and `0::/group` of version 2, cgroups(7)."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            yield "cgroup2", PurePosixPath(group)
        elif "memory" in controllers.split(","):
            yield "cgroup", PurePosixPath(group)


def _folders(mount: _Mount, group: PurePosixPath) -> Iterator[Path]:
    """Of the group and those that it is in, up to the mount; of this alone where the group is not below it."""
    folder = mount.point
    if group.is_relative_to(mount.top) and ".." not in group.parts:
        below = group.relative_to(mount.top)
        for part in reversed((below, *below.parents)):
            if part != PurePosixPath("."):
                yield folder / part
    yield folder


def _limits_in(folder: Path, kind: str) -> Iterator[int]:
    for name in _FILES[kind]:
        text = _text(folder / name).strip()
        if text.isdecimal():
            yield int(text)
    if kind == "cgroup":  # it knows of those above what is mounted, too
        yield from map(int, _OF_ALL_ABOVE.findall(_text(folder / "memory.stat")))


def _plain(path: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), path)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):
        return ""

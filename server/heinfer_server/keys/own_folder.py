"""Whether a folder is for keys, decided before anything in it is changed.

A folder that is for something else would be closed to all others, and what is in it removed.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from urllib.parse import quote

from heinfer.errors import SettingError

VERSION = 2
FRAMES, INDEX, CONFIRMATION, LOCK = "frames", "index.sqlite", "clock-confirmed", "lock"

_FILES = re.compile(
    rf"{re.escape(INDEX)}(-wal|-shm|-journal)?|{LOCK}|{CONFIRMATION}|\.{CONFIRMATION}\.[0-9a-f]{{16}}", re.ASCII
)
_FRAME = re.compile(r"[0-9a-f]{64}(\.part)?", re.ASCII)
_FILE_SYSTEMS = "lost+found"
_TABLES = {"keys", "seen"}
_ALL_VERSIONS = {"id", "tenant", "digest", "size", "created", "used"}
_WAY_OUT = "give HEINFER_SERVER_KEY_FOLDER a folder of its own"


def require_own(folder: Path) -> None:
    """Refuse a folder unless it is not there, empty, or has what a service keeps of keys and nothing else.

    Raises:
        SettingError: when it is for something else, or its keys are of a newer heinfer or belong to another user.
        OSError, sqlite3.Error: when what is in it cannot be read.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SettingError(f"keys cannot be kept in {folder}, which is no folder: set HEINFER_SERVER_KEY_FOLDER to one")
    try:
        _require_only_keys(folder)
    except PermissionError:
        for place in (folder, folder / FRAMES):
            require_owner(place, place.stat().st_uid)
        raise


def require_owner(folder: Path, owner: int) -> None:
    """Refuse a folder of another user's, who could put links there to what root may change."""
    user = os.geteuid()
    if owner != user:
        raise SettingError(
            f"{folder} belongs to user {owner}, and the service runs as user {user}: run it as that user, hand the "
            f"folder over if its keys are this service's (chown -R {user} FOLDER, as root), or {_WAY_OUT}"
        )


def require_own_index(index: sqlite3.Connection, folder: Path) -> int:
    """Version of an index, 0 of one in which nothing is yet; SettingError when it is of something else, or newer."""
    (version,) = index.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in index.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    columns = {name for (name,) in index.execute("SELECT name FROM pragma_table_info('keys')")}
    if tables and not columns >= _ALL_VERSIONS:
        raise _has_others(folder, [INDEX])
    if version > VERSION:
        raise SettingError(f"a newer heinfer keeps keys in {folder}: give this one another folder")
    if not tables <= _TABLES or bool(tables) != bool(version):
        raise _has_others(folder, [INDEX])
    return int(version)


def is_frame(path: Path) -> bool:
    """Whether a file is of a name and kind that a storage makes among its frames."""
    return _FRAME.fullmatch(path.name) is not None and _is_regular(path)


def _require_only_keys(folder: Path) -> None:
    there = {path.name: path for path in folder.iterdir() if path.name != _FILE_SYSTEMS}
    others = [name for name, path in there.items() if not (_is_frames(path) if name == FRAMES else _is_file(path))]
    if others:
        raise _has_others(folder, others)
    frames = list(there[FRAMES].iterdir()) if FRAMES in there else []
    others = [path.name for path in frames if not is_frame(path)]
    if others:
        raise _has_others(folder / FRAMES, others)
    if INDEX in there:
        _require_own_index_file(there[INDEX], folder)
    elif frames:  # a start that was cut off has made none yet
        raise SettingError(f"{folder} has frames of keys and no {INDEX}: bring that back, or {_WAY_OUT}")


def _is_frames(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def _is_file(path: Path) -> bool:
    return _FILES.fullmatch(path.name) is not None and _is_regular(path)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:  # gone meanwhile: another server keeps its keys here, as the lock will say
        return True


def _require_own_index_file(path: Path, folder: Path) -> None:
    """What the file says, read so that SQLite makes no file beside it; where it says nothing, its log as well."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as index:
        is_known = require_own_index(index, folder) > 0
    log = path.with_name(f"{INDEX}-wal")
    if is_known or not log.exists() or not log.stat().st_size:
        return
    with TemporaryDirectory(prefix="heinfer-") as place:
        for name in (INDEX, log.name):
            copyfile(path.with_name(name), Path(place) / name)
        with closing(sqlite3.connect(Path(place) / INDEX)) as index:
            require_own_index(index, folder)


def _has_others(folder: Path, names: list[str]) -> SettingError:
    some = ", ".join(map(ascii, sorted(names)[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return SettingError(f"keys cannot be kept in {folder}, which has other things in it ({some}): {_WAY_OUT}")

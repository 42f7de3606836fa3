"""Storage on disk: a file for every frame of keys, and an SQLite index that says which of them count.

Whatever ends the process, at any moment: a frame is whole before the index names it, and named before its client hears
of it; what the index does not name is removed when the storage is opened again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path

from heinfer.errors import SettingError
from heinfer_server.errors import StorageError
from heinfer_server.keys.clock import Seen
from heinfer_server.keys.frame_file import FrameFile
from heinfer_server.keys.own_folder import (
    CONFIRMATION,
    FRAMES,
    INDEX,
    LOCK,
    VERSION,
    is_frame,
    require_own,
    require_own_index,
    require_owner,
)
from heinfer_server.keys.storage import Entry
from heinfer_server.telemetry.logs import log

_logger = logging.getLogger(__name__)

_COLUMNS = tuple(field.name for field in fields(Entry))
_SCHEMA = """
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    key_set TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    created REAL NOT NULL,
    used REAL NOT NULL
) STRICT
"""
_SEEN = "CREATE TABLE IF NOT EXISTS seen (time REAL NOT NULL, doubted_since REAL) STRICT"  # no older heinfer minds
_FORMER = "frames of keys have another format now: clients register theirs again by themselves"
_PUT = f"INSERT OR REPLACE INTO keys (id, {', '.join(_COLUMNS)}) VALUES (?{', ?' * len(_COLUMNS)})"  # noqa: S608 - constants
_LIST = f"SELECT id, {', '.join(_COLUMNS)} FROM keys"  # noqa: S608 - constants


class DiskStorage:
    """See heinfer_server.keys.storage.Storage; everything in the folder is of mode 0600, and the folder of 0700.

    Raises:
        SettingError: when the folder cannot be used, has other things in it, another server uses it, or a newer heinfer
            wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self._frames = folder / FRAMES
        self._confirmation = folder / CONFIRMATION
        try:
            require_own(folder)
            for place in (folder, self._frames):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
                _close_to_others(place, 0 if place is folder else os.O_NOFOLLOW)
            self._lock = _open_private(folder / LOCK)
            self._take(folder)
            os.close(_open_private(folder / INDEX))  # SQLite gives its other files the mode of this one
            self._index = sqlite3.connect(folder / INDEX, check_same_thread=False, isolation_level=None)
            self._open_index(folder)
            self._entries = self._swept()
        except (OSError, sqlite3.Error) as error:
            raise SettingError(f"keys cannot be kept in {folder}: {error}") from error

    def entries(self) -> Collection[Entry]:
        return self._entries

    def put(self, entry: Entry, frame: bytes, gone: Collection[str]) -> None:
        with _failures():
            known = self._index.execute("SELECT 1 FROM keys WHERE id = ?", (entry.id,)).fetchone()
            self._write(entry.id, frame)
            try:
                with self._transaction():
                    self._index.execute(_PUT, (entry.id, *astuple(entry)))
                    self._delete(gone)
            except BaseException:
                if not known:
                    self._unlink({entry.id})
                raise
            self._unlink(gone)

    def open(self, entry: Entry) -> FrameFile | None:
        with _failures():
            try:
                descriptor = os.open(self._path(entry.id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return None  # its client registers again, whatever became of it
            frame = FrameFile(descriptor, entry.size)
            return frame if frame.digest() == entry.digest else None

    def remove(self, gone: Collection[str]) -> None:
        with _failures():
            try:
                with self._transaction():
                    self._delete(gone)
            finally:  # a disk too full to note it gets room by it; what is indexed and not there counts for nothing
                self._unlink(gone)

    def note_use(self, entries: Collection[Entry]) -> None:
        with _failures(), self._transaction():
            self._index.executemany(
                "UPDATE keys SET used = ? WHERE id = ?", [(entry.used, entry.id) for entry in entries]
            )

    def seen(self) -> Seen | None:
        with _failures():
            if not self._index.execute("SELECT 1 FROM sqlite_schema WHERE name = 'seen'").fetchone():
                return None
            row = self._index.execute("SELECT time, doubted_since FROM seen").fetchone()
        return None if row is None else Seen(*row)

    def note_seen(self, seen: Seen) -> None:
        with _failures(), self._transaction():
            self._index.execute(_SEEN)
            self._index.execute("DELETE FROM seen")
            self._index.execute("INSERT INTO seen VALUES (?, ?)", astuple(seen))

    def take_confirmation(self) -> bool:
        try:
            self._confirmation.unlink()
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._index.close()
        os.close(self._lock)

    def _take(self, folder: Path) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingError(
                f"another server keeps its keys in {folder}: give this one a folder of its own"
            ) from None

    def _open_index(self, folder: Path) -> None:
        self._index.execute("PRAGMA journal_mode = WAL")
        self._index.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before a client hears of it
        version = require_own_index(self._index, folder)
        if version < VERSION:
            with self._transaction():
                former = self._index.execute("SELECT count(*) FROM keys").fetchone()[0] if version else 0
                self._index.execute("DROP TABLE IF EXISTS keys")  # their frames go when the folder is swept
                self._index.execute(_SCHEMA)
                self._index.execute(f"PRAGMA user_version = {VERSION}")
            if former:
                log(_logger, logging.WARNING, "former keys removed", keys=former, reason=_FORMER)

    def _swept(self) -> list[Entry]:
        """What is indexed and there; whatever is only one of the two is removed."""
        there = {path.name: path.stat().st_size for path in self._frames.iterdir() if is_frame(path)}
        indexed = {key_id: Entry(*row) for key_id, *row in self._index.execute(_LIST)}
        sound = {i: entry for i, entry in indexed.items() if there.get(i) == entry.size and i == entry.id}
        with self._transaction():
            self._delete(indexed.keys() - sound.keys())
        left_over = there.keys() - sound.keys()
        self._unlink(left_over)
        if left_over:
            log(_logger, logging.INFO, "left over frames removed", frames=len(left_over))
        return list(sound.values())

    def _write(self, key_id: str, frame: bytes) -> None:
        temporary = self._frames / f"{key_id}.part"
        try:
            with os.fdopen(_open_private(temporary, os.O_TRUNC), "wb") as file:
                file.write(frame)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path(key_id))
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(self._frames, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _delete(self, gone: Collection[str]) -> None:
        self._index.executemany("DELETE FROM keys WHERE id = ?", [(key_id,) for key_id in gone])

    def _unlink(self, gone: Collection[str]) -> None:
        for key_id in gone:
            self._path(key_id).unlink(missing_ok=True)

    def _path(self, key_id: str) -> Path:
        return self._frames / key_id

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._index.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._index.execute("COMMIT")
        except BaseException:
            if self._index.in_transaction:
                self._index.execute("ROLLBACK")
            raise


def _close_to_others(folder: Path, flags: int) -> None:
    """Make a folder this user's alone; SettingError when another could have put links there to what root may change."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags)
    try:
        require_owner(folder, os.fstat(descriptor).st_uid)
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _open_private(path: Path, flags: int = 0) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise StorageError("the service cannot keep evaluation keys now: its disk fails or is full") from error

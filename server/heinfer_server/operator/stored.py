"""Stored keys, as the operator's commands find them: listed, saved, and their clock confirmed.

The service may run meanwhile: it alone writes the folder, but for one file that says that the clock is right.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import stat
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import copyfileobj
from types import FrameType
from typing import Annotated, BinaryIO
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from heinfer.errors import SettingError
from heinfer_server.admission.folder import in_folder
from heinfer_server.keys.own_folder import CONFIRMATION, FRAMES, INDEX, VERSION
from heinfer_server.operator.apart import apart

_MOST_LISTED = 1 << 26
_HEX = frozenset("0123456789abcdef")
_PIECE = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LIST = "SELECT tenant, key_set, size, created, used FROM keys ORDER BY tenant, used"


class StoredSet(BaseModel):
    """What an operator may know of stored keys: not the id, by which they are used.

    Attributes:
        tenant: the id of whose they are.
        key_set: digest of what they are for.
        size: bytes.
        created, used: seconds since the epoch.
    """

    model_config = ConfigDict(frozen=True)

    tenant: str = Field(pattern=r"^([0-9a-f]{16}|default)$")
    key_set: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: Annotated[int, Field(ge=0)]
    created: Annotated[float, Field(ge=0, lt=1 << 36)]
    used: Annotated[float, Field(ge=0, lt=1 << 36)]


_Listing = TypeAdapter(list[StoredSet])


def stored_sets(folder: Path) -> list[StoredSet]:
    """All sets of keys in a folder, by tenant, the least recently used first; SettingError when it is not readable."""
    with apart(folder, _list) as answer:
        data = answer.read(_MOST_LISTED)
    try:
        return _Listing.validate_json(data)
    except ValidationError:
        raise SettingError(f"{folder} has an index of keys that no heinfer wrote") from None


def back_up(folder: Path | None, tenants: Path | None, target: Path) -> int:
    """Save keys as they are at one moment, and the file of tenants, in a new tar file for its owner alone.

    Args:
        folder: of a service, which may run and go on registering.
        tenants: the file.
        target: where nothing is yet.

    Returns:
        Bytes of the tar file.

    Raises:
        SettingError: when something cannot be read, or the tar file not be written; then there is none.
    """
    with _new_file(target) as file:
        if folder is not None:
            with apart(folder, _save) as answer:
                copyfileobj(answer, file)
        if tenants is not None:  # after the keys: of whom they are is in it, and whoever was removed meanwhile as such
            _put(file, "tenants.json", _content(tenants))
        file.write(bytes(2 * tarfile.BLOCKSIZE))
        return file.tell()


def confirm_clock(folder: Path) -> None:
    """Tell the service whose folder this is that the clock is right; SettingError when it cannot be told."""
    try:
        if not os.path.lexists(folder / INDEX):
            raise SettingError(f"{folder} has no keys of a service: name the one that HEINFER_SERVER_KEY_FOLDER names")
        with in_folder(folder / CONFIRMATION) as file:
            file.replace(b"")
    except OSError as error:
        raise SettingError(f"{folder} cannot be written: {error.strerror}") from None


# In a process of its own, as the folder's user ------------------------------------------------


def _list(folder: Path, answer: BinaryIO) -> None:
    with closing(_index(folder)) as index:
        names = ("tenant", "key_set", "size", "created", "used")
        answer.write(json.dumps([dict(zip(names, row, strict=True)) for row in index.execute(_LIST)]).encode())


def _save(folder: Path, answer: BinaryIO) -> None:
    """The index as it is now, then the frames that it names: none of them ever changes.

    One that goes meanwhile, or is none, is left out, and the index that is restored forgets it at the start.
    """
    with closing(_index(folder)) as index, closing(sqlite3.connect(":memory:")) as copy:
        index.backup(copy)
        content = copy.serialize()
        sizes = copy.execute("SELECT id, size FROM keys ORDER BY used").fetchall()
    _put(answer, f"keys/{INDEX}", content)
    for key_id, size in sizes:
        if len(key_id) == 64 and _HEX.issuperset(key_id):
            with _frame(folder / FRAMES / key_id, size) as file:
                if file is not None:
                    _stream(answer, f"keys/{FRAMES}/{key_id}", file, size)


@contextmanager
def _frame(path: Path, size: int) -> Iterator[int | None]:
    """Descriptor of a file of that size; None where there is something else, which no service has made."""
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        yield None
        return
    try:
        found = os.fstat(descriptor)
        is_frame = stat.S_ISREG(found.st_mode) and found.st_size == size and not _has_hole(descriptor, size)
        yield descriptor if is_frame else None
    finally:
        os.close(descriptor)


def _stream(answer: BinaryIO, name: str, file: int, size: int) -> None:
    answer.write(_head(name, size))
    at = 0
    while at < size:
        piece = os.pread(file, min(size - at, _PIECE), at)
        if not piece:
            raise SettingError("a frame of keys became shorter while it was read")
        answer.write(piece)
        at += len(piece)
    answer.write(_padding(size))


def _has_hole(file: int, size: int) -> bool:
    """Whether it takes less room on its disk than in a tar file."""
    try:
        return os.lseek(file, 0, os.SEEK_HOLE) < size
    except OSError:  # the file system does not say; ENXIO of an empty one
        return False


def _index(folder: Path) -> sqlite3.Connection:
    for name in (INDEX, f"{INDEX}-wal", f"{INDEX}-shm"):
        try:
            is_file = stat.S_ISREG(os.lstat(folder / name).st_mode)
        except FileNotFoundError:
            is_file = name != INDEX
        if not is_file:
            raise SettingError("there is no index of keys in it" if name == INDEX else f"its {name} is no file")
    index = sqlite3.connect(f"file:{quote(str(folder / INDEX))}?mode=ro", uri=True)
    (version,) = index.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise SettingError(f"{'a newer' if version > VERSION else 'the former'} heinfer wrote its index")
    (kind,) = index.execute("SELECT type FROM sqlite_schema WHERE name = 'keys'").fetchone() or ("",)
    if kind != "table":  # a view may go on for ever
        raise SettingError("no heinfer wrote its index")
    return index


# The tar file ---------------------------------------------------------------------------------


@contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    """A file of mode 0600 that was not there before, and is not if this fails, or is told to end."""
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingError(f"{target} cannot be made: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file, _ended_by_signals():
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        raise SettingError(f"{target} cannot be written: {error.strerror}") from None
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have signals that would end the process at once raise SystemExit meanwhile, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in (number for number, handler in former.items() if handler is not signal.SIG_IGN):  # as of nohup
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _put(archive: BinaryIO, name: str, content: bytes) -> None:
    archive.write(_head(name, len(content)))
    archive.write(content)
    archive.write(_padding(len(content)))


def _head(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, int(time.time())
    return entry.tobuf()


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _content(tenants: Path) -> bytes:
    try:
        with in_folder(tenants) as file:
            content = file.read()
    except OSError as error:
        raise SettingError(f"{tenants} cannot be read: {error.strerror}") from None
    if content is None:
        raise SettingError(f"there is no file of tenants {tenants}")
    return content

"""One file in a folder that another user may write: read and replaced so that no other file can be meant.

Whoever writes a folder can at any moment put links, pipes and files of others in the place of names in it. So the
folder is opened once, a name is used only with its descriptor and never followed, what is found is judged by the
descriptor it was opened as, and only a file that was made here, a moment ago, is given to anybody.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from heinfer.errors import SettingError

_LOCK_SECONDS = 10.0
_MAX_BYTES = 1 << 26
_MAX_LINKS = 40
_SAFE_PLACE = "keep it in a folder that only you may write, which the service's user may read"


class FileInFolder:
    """A file, by the descriptor of its folder.

    Raises:
        SettingError: from every method, when what is there under the name cannot be trusted, or it is locked.
        OSError: from every method, when the system refuses.
    """

    def __init__(self, folder: int, path: Path) -> None:
        self._folder = folder
        self._path = path
        self._owner = os.fstat(folder)

    def read(self) -> bytes | None:
        """What is in the file; None when there is none."""
        found = self._opened()
        if found is None:
            return None
        with os.fdopen(found, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise SettingError(f"{self._path} has more than {_MAX_BYTES} bytes: name the file that heinfer wrote")
        return data

    def replace(self, data: bytes) -> None:
        """Put a new file in its place, whole or not at all, which those may read who might read the old one.

        A first one is for its owner alone. Root gives it to whom the old one belonged, or the folder.
        """
        owner, mode = self._owner, 0o600
        found = self._opened()
        if found is not None:
            owner = _status_and_close(found)
            mode |= owner.st_mode & 0o044
        temporary = f".{self._path.name}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=self._folder), "wb") as file:
                file.write(data)
                file.flush()
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(temporary, self._path.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=self._folder)
            raise
        os.fsync(self._folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from the file meanwhile, by another beside it, which only its owner can open.

        Whoever may read the folder, or the file, could lock that for ever.
        """
        end = time.monotonic() + _LOCK_SECONDS
        while (lock := self._try_lock()) is None:
            if time.monotonic() > end:
                raise SettingError(
                    f"{self._path} is locked by another command for {_LOCK_SECONDS:.0f} s: try again when none changes "
                    f"it, or remove {self._path.with_name(self._lock)} where none runs"
                )
            time.sleep(0.01)
        try:
            yield
        finally:
            with suppress(OSError):  # while it is held: who waits for it sees that it is gone, and makes another
                os.unlink(self._lock, dir_fd=self._folder)
            os.close(lock)

    @property
    def _lock(self) -> str:
        return f".{self._path.name}.lock"

    def _try_lock(self) -> int | None:
        """Descriptor of the locked file; None while another process has it, or has just removed it."""
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self._lock, flags, 0o600, dir_fd=self._folder)
        except PermissionError:
            if not os.access(self._lock, os.F_OK, dir_fd=self._folder, follow_symlinks=False):
                raise  # none can be made here
            return None  # a command of root's has it
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._no_lock() from None
            raise
        try:
            self._require_lock(os.fstat(descriptor))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.stat(self._lock, dir_fd=self._folder, follow_symlinks=False)
            if os.path.samestat(there, os.fstat(descriptor)):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _require_lock(self, status: os.stat_result) -> None:
        is_own = status.st_uid in (self._owner.st_uid, os.geteuid()) and status.st_nlink <= 1
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or not is_own:
            raise self._no_lock()

    def _no_lock(self) -> SettingError:
        return SettingError(f"{self._path.with_name(self._lock)} is no lock that heinfer made: remove it")

    def _opened(self) -> int | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not keep it waiting
        try:
            descriptor = os.open(self._path.name, flags, dir_fd=self._folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise SettingError(f"{self._path} is a link: name the file itself, or remove the link") from None
            raise
        try:
            self._require_own(os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _require_own(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise SettingError(f"{self._path} is no regular file: give the file of tenants another name")
        # A hard link is not seen by its count, which its maker can lower again, but by whose file it is: in a folder
        # of somebody else root takes that user's files only.
        folder_owner, user = self._owner.st_uid, os.geteuid()
        is_roots_alone = user == folder_owner == 0
        if not is_roots_alone and status.st_uid not in ({folder_owner, user, 0} if user else {folder_owner}):
            raise SettingError(
                f"{self._path} belongs to user {status.st_uid}, its folder to user {folder_owner}: find out who "
                f"put it there, and {_SAFE_PLACE}"
            )


@contextmanager
def in_folder(path: Path) -> Iterator[FileInFolder]:
    """Open the folder of a file; links on the way are followed only where nobody else can have made them.

    Raises:
        SettingError: when others may write the folder (but for whom it belongs to), or could have led the way there.
        OSError: when there is no such folder, or it cannot be read.
    """
    if path.name in ("", ".."):
        raise SettingError(f"{path} is a folder: name a file in it")
    folder = opened_folder(path.parent)
    try:
        if os.fstat(folder).st_mode & _writable_by_others():
            raise SettingError(
                f"{path.parent} may be written by others than its owner, who could put any file there under the name: "
                f"take that right from them (chmod go-w), or {_SAFE_PLACE}"
            )
        yield FileInFolder(folder, path)
    finally:
        os.close(folder)


def opened_folder(path: Path) -> int:
    """Descriptor of a folder, reached from one component to the next.

    Raises:
        SettingError: when another user could have led the way there.
        OSError: when there is no such folder, or it cannot be read.
    """
    parts, links = list(reversed(path.parts)) or ["."], 0
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        while parts:
            part = parts.pop()
            try:
                below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            except NotADirectoryError:
                parts.extend(reversed(PurePath(_link(here, part, path)).parts))
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                continue
            os.close(here)
            here = below
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def _link(here: int, name: str, path: Path) -> str:
    """Where a link leads; NotADirectoryError when it is none."""
    try:
        target = os.readlink(name, dir_fd=here)
    except OSError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
    status = os.fstat(here)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & _writable_by_others():
        raise SettingError(
            f"{name} in {path} is a link that another user may have made: name the folder that it leads to, if you "
            "know it"
        )
    return target


def _writable_by_others() -> int:
    """Rights to write that make a folder one of others; a group is trusted by its members, not by root."""
    return stat.S_IWGRP | stat.S_IWOTH if os.geteuid() == 0 else stat.S_IWOTH


def _status_and_close(descriptor: int) -> os.stat_result:
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)

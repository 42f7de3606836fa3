"""Reading another user's folder with that user's rights, and with nothing else in sight.

Root must not open what that user can replace by links, nor parse what they wrote: a process does it that has become the
user, for which the folder is all that there is. What it has to say comes through a pipe. That user can still have it
stand still, by pipes in the place of files or by a signal, or take memory: both have a bound. It dies with root's.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from heinfer.errors import SettingError
from heinfer_server.admission.folder import opened_folder
from heinfer_server.isolation.privileges import die_with, limit

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Work = Callable[[Path, BinaryIO], None]
"""Reads the folder, at the path that it gets, and writes what it has to say; it can import nothing."""

_MOST_REASON = 500
_STILL_SECONDS = 60.0
_MEMORY = 1 << 29
_FILES, _FILE_BYTES = 1024, 1 << 26  # SQLite may make what it shares with the service


@contextmanager
def apart(folder: Path, work: Work) -> Iterator[BinaryIO]:
    """What work writes, as it comes; the process is over when this is.

    Raises:
        SettingError: when this user cannot read the folder, or work fails, or says nothing for a minute.
    """
    try:
        there = opened_folder(folder)
    except OSError as error:
        raise SettingError(f"{folder} cannot be read: {error.strerror}") from None
    try:
        owner = os.fstat(there)
        if os.geteuid() not in (0, owner.st_uid):
            raise SettingError(f"{folder} belongs to user {owner.st_uid}: run this as that user, or as root")
        reading, writing = os.pipe()
        why, says_why = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _work(parent, there, owner, folder, work, writing, says_why)
    finally:
        os.close(there)
    os.close(writing)
    os.close(says_why)
    with BufferedReader(_Pipe(reading, folder)) as answer, BufferedReader(_Pipe(why, folder)) as reason:
        try:
            yield answer
            answer.close()  # a process that still writes ends by it
            said = reason.read(_MOST_REASON)
        except BaseException:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(pid, 0)
    if status:
        text = "".join(character for character in said.decode(errors="replace") if character.isprintable())
        raise SettingError(f"{folder} cannot be read as a folder of a service's keys: {text or 'it failed'}")


def _work(
    parent: int, there: int, owner: os.stat_result, folder: Path, work: Work, writing: int, says_why: int
) -> None:
    """The process's whole life."""
    status = 1
    try:
        path = folder
        limit(_MEMORY, _FILES, _FILE_BYTES, 1)
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.fchdir(there)
            os.chroot(".")
            os.setgroups([])
            os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
            os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
            path = Path("/")
        die_with(parent)  # becoming another user would have undone it
        with os.fdopen(writing, "wb") as answer:
            work(path, answer)
        status = 0
    except BaseException as error:  # nothing of the process that this one was made of may go on
        said = "it takes too much memory" if isinstance(error, MemoryError) else str(error)
        os.write(says_why, said.encode()[:_MOST_REASON])
    finally:
        os._exit(status)


class _Pipe(RawIOBase):
    """An end to read from, that nobody who stands still keeps waiting."""

    def __init__(self, descriptor: int, folder: Path) -> None:
        self._descriptor = descriptor
        self._folder = folder
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if not self._poll.poll(1e3 * _STILL_SECONDS):
            raise SettingError(
                f"nothing of {self._folder} could be read for {_STILL_SECONDS:.0f} s: look for what is in it that no "
                "service has made, pipes above all"
            )
        return os.readv(self._descriptor, [buffer])

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

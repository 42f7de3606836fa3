"""Reading another user's folder with that user's rights, and with nothing else in sight.

Root must not open what that user can replace by links, nor parse what they wrote: a process does it that has become the
user, for which the folder is all that there is. What it has to say comes through a pipe.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from heinfer.errors import SettingError
from heinfer_server.admission.folder import opened_folder

Work = Callable[[Path, BinaryIO], None]
"""Reads the folder, at the path that it gets, and writes what it has to say; it can import nothing."""

_MOST_REASON = 500


@contextmanager
def apart(folder: Path, work: Work) -> Iterator[BinaryIO]:
    """What work writes, as it comes; the process is over when this is.

    Raises:
        SettingError: when this user cannot read the folder, or work fails.
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
        pid = os.fork()
        if pid == 0:
            _work(there, owner, folder, work, writing, says_why)
    finally:
        os.close(there)
    os.close(writing)
    os.close(says_why)
    with os.fdopen(reading, "rb") as answer, os.fdopen(why, "rb") as reason:
        try:
            yield answer
            said = reason.read(_MOST_REASON)
        finally:
            answer.close()  # a process that still writes ends by it
            _, status = os.waitpid(pid, 0)
    if status:
        text = "".join(character for character in said.decode(errors="replace") if character.isprintable())
        raise SettingError(f"{folder} cannot be read as a folder of a service's keys: {text or 'it failed'}")


def _work(there: int, owner: os.stat_result, folder: Path, work: Work, writing: int, says_why: int) -> None:
    """The process's whole life."""
    status = 1
    try:
        path = folder
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.fchdir(there)
            os.chroot(".")
            os.setgroups([])
            os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
            os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
            path = Path("/")
        with os.fdopen(writing, "wb") as answer:
            work(path, answer)
        status = 0
    except BaseException as error:  # nothing of the process that this one was made of may go on
        os.write(says_why, str(error).encode()[:_MOST_REASON])
    finally:
        os._exit(status)

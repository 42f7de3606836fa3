"""Keyrings for tests, through the library that the client uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import keyring
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError


class InMemory(KeyringBackend):
    """Keeps what it is given as long as the process.

    Attributes:
        entries: by service and name.
        is_locked: whether it refuses.
    """

    priority: ClassVar[float] = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        self._require_open()
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._require_open()
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._require_open()
        if self.entries.pop((service, username), None) is None:
            raise PasswordDeleteError("nothing there")

    def _require_open(self) -> None:
        if self.is_locked:
            raise KeyringLocked("locked")


@contextmanager
def keyring_in_memory() -> Iterator[InMemory]:
    """A keyring in the place of this machine's."""
    before, ours = keyring.get_keyring(), InMemory()
    keyring.set_keyring(ours)
    try:
        yield ours
    finally:
        keyring.set_keyring(before)

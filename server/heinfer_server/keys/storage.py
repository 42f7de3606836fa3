"""Where a store keeps frames of keys: what a storage has to do, and what it says of each frame."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from heinfer_server.keys.clock import Seen
from heinfer_server.keys.frame_file import FrameFile


@dataclass(frozen=True)
class Entry:
    """Stored keys.

    Attributes:
        tenant: whose they are.
        key_set: digest of what they are for: all models that take the same keys, and no others.
        digest: hexadecimal SHA-256 of the frame.
        size: bytes of the frame.
        created, used: seconds since the epoch, by the store's clock.
    """

    tenant: str
    key_set: str
    digest: str
    size: int
    created: float
    used: float

    @property
    def id(self) -> str:
        """The address: says what is stored and for whom, and is as hard to guess as the keys themselves."""
        return address(self.tenant, self.key_set, self.digest)


def address(tenant: str, key_set: str, digest: str) -> str:
    """Id of keys of that digest, of a tenant, for a key set: 64 hexadecimal digits."""
    parts = (tenant, key_set, digest)  # without length they could run into each other
    return sha256(b"".join(len(part).to_bytes(4, "little") + part.encode() for part in parts)).hexdigest()


class Storage(Protocol):
    """Where frames of keys lie. Its methods may block, and raise StorageError when the place fails."""

    def entries(self) -> Collection[Entry]:
        """What was there when the storage was opened."""

    def put(self, entry: Entry, frame: bytes, gone: Collection[str]) -> None:
        """Keep a frame and forget others, by id: all of it, or nothing."""

    def open(self, entry: Entry) -> FrameFile | None:
        """The frame; None when it is not there any more, or not what it was."""

    def remove(self, gone: Collection[str]) -> None:
        """Forget frames, by id."""

    def note_use(self, entries: Collection[Entry]) -> None:
        """Keep when these were last used."""

    def seen(self) -> Seen | None:
        """What was last noted; None when nothing was."""

    def note_seen(self, seen: Seen) -> None:
        """Keep that the service runs."""

    def take_confirmation(self) -> bool:
        """Whether an operator has said, since the last time, that the wall clock is right."""

    def close(self) -> None:
        """Let go of the place."""

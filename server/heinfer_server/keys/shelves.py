"""A shelf in memory: keys last as long as the process."""

from __future__ import annotations

from collections.abc import Collection

from heinfer_server.keys.clock import Seen
from heinfer_server.keys.store import Entry


class MemoryShelf:
    """See heinfer_server.keys.store.Shelf."""

    def __init__(self) -> None:
        self._frames: dict[str, bytes] = {}

    def entries(self) -> Collection[Entry]:
        return ()

    def put(self, entry: Entry, frame: bytes, gone: Collection[str]) -> None:
        self.remove(gone)
        self._frames[entry.id] = frame

    def read(self, entry: Entry) -> bytes | None:
        return self._frames.get(entry.id)

    def remove(self, gone: Collection[str]) -> None:
        for key_id in gone:
            self._frames.pop(key_id, None)

    def note_use(self, entries: Collection[Entry]) -> None:
        pass

    def seen(self) -> Seen | None:
        return None

    def note_seen(self, seen: Seen) -> None:
        pass

    def take_confirmation(self) -> bool:
        return False

    def close(self) -> None:
        self._frames.clear()

"""Clients' evaluation keys, by content, within bounds: who has which, and which go first when room is needed.

Where frames lie, in memory or on disk, only a storage knows (memory_storage.py, disk_storage.py).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf
from threading import Lock

from heinfer.errors import SettingError, UnknownKeysError
from heinfer_server.errors import StorageError
from heinfer_server.keys.clock import Clocks, KeyClock, Redate, Seen
from heinfer_server.keys.frame_file import FrameFile
from heinfer_server.keys.storage import Entry, Storage

SEEN_SECONDS = 600.0
"""After which it is kept again that the service was running."""


@dataclass(frozen=True)
class StoreLimits:
    """Bounds of a store.

    Attributes:
        capacity: bytes of all keys together.
        quota: bytes of one tenant's.
        seconds: keys that nobody has used for so long go.
        longest_downtime: seconds by which the wall clock may differ from what was last stored, and be believed.
    """

    capacity: int
    quota: int
    seconds: float = float("inf")
    longest_downtime: float = float("inf")


_REAL_CLOCKS = Clocks()


class KeyStore:
    """Keys by their address. Those that have not been used for longest go when room is needed.

    Room is taken from the tenant who needs it where a quota asks for it, else from the one who has most: nobody pushes
    out those who have less. Reading and changing it may block; asking what is there does not. While the wall clock is
    not to be believed (keys/clock.py), nothing expires.
    """

    def __init__(self, limits: StoreLimits, storage: Storage, clocks: Clocks = _REAL_CLOCKS) -> None:
        self._limits = limits
        self._storage = storage
        self._changing = Lock()  # one change of the storage at a time; never taken in the event loop
        self._looking = Lock()  # of what follows; never held while anything blocks
        ordered = sorted(storage.entries(), key=lambda entry: entry.used)
        self._entries: OrderedDict[str, Entry] = OrderedDict((entry.id, entry) for entry in ordered)
        self._touched: set[str] = set()
        seen, used = storage.seen(), ordered[-1].used if ordered else -inf
        if seen is None and ordered:
            seen = Seen(used)
        elif seen is not None:
            seen = replace(seen, time=max(seen.time, used))
        self._clock = KeyClock(seen, limits.longest_downtime, clocks)
        self._noted = -inf
        now = self._clock()
        self._redate(lambda used: min(used, now))
        self.evict_expired()  # limits may have become smaller

    # What is there

    def find(self, tenant: str, key_id: str) -> Entry:
        """Say what is stored and count it as used now; UnknownKeysError when the tenant has nothing under the id."""
        with self._looking:
            entry = self._entries.get(key_id)
            if entry is None or entry.tenant != tenant or self._is_over(entry):
                raise unknown_keys()
            self._entries[key_id] = replace(entry, used=self._clock())
            self._entries.move_to_end(key_id)
            self._touched.add(key_id)
            return entry

    def has(self, tenant: str, key_id: str) -> bool:
        """Whether a tenant has something under the id; then it counts as used now."""
        try:
            self.find(tenant, key_id)
        except UnknownKeysError:
            return False
        return True

    def tenant_of(self, key_id: str) -> str | None:
        """Whose keys these are; None when there are none under the id."""
        with self._looking:
            entry = self._entries.get(key_id)
        return None if entry is None else entry.tenant

    def key_set_of(self, tenant: str, key_id: str) -> str | None:
        """What a tenant's keys are for, which does not count as use; None when it has none under the id."""
        with self._looking:
            entry = self._entries.get(key_id)
        return None if entry is None or entry.tenant != tenant else entry.key_set

    def __contains__(self, key_id: str) -> bool:
        with self._looking:
            return key_id in self._entries

    def __len__(self) -> int:
        with self._looking:
            return len(self._entries)

    @property
    def total_bytes(self) -> int:
        """Bytes of all that is stored."""
        with self._looking:
            return sum(entry.size for entry in self._entries.values())

    @property
    def is_expiry_suspended(self) -> bool:
        """Whether nothing expires, because the wall clock is not to be believed."""
        return self._clock.is_doubted

    def of(self, tenant: str) -> list[Entry]:
        """What a tenant has, the least recently used first."""
        with self._looking:
            return [entry for entry in self._entries.values() if entry.tenant == tenant and not self._is_over(entry)]

    # What may block

    def add(self, tenant: str, key_set: str, frame: bytes) -> str:
        """Keep keys and return their id, the same for the same; they are there for good when this returns.

        Raises:
            SettingError: when they alone exceed the capacity or the quota.
            StorageError: when the place fails; then nothing has changed.
        """
        if len(frame) > min(self._limits.capacity, self._limits.quota):
            raise SettingError(f"one client's keys take {len(frame)} bytes, more than there may be of all")
        now = self._clock()
        entry = Entry(tenant, key_set, sha256(frame).hexdigest(), len(frame), now, now)
        with self._changing:
            with self._looking:
                gone = set(self._to_go(entry))
            self._storage.put(entry, frame, gone - {entry.id})
            with self._looking:
                self._forget(gone)
                self._entries[entry.id] = entry
        return entry.id

    def open(self, key_id: str) -> FrameFile:
        """The frame of them, which stays what it is when they are removed.

        Raises:
            UnknownKeysError: when there are none under the id.
            StorageError: when the place fails; they stay registered.
        """
        with self._looking:
            entry = self._entries.get(key_id)
        if entry is None:
            raise unknown_keys()
        frame = self._storage.open(entry)
        if frame is None:
            self._drop(entry)
            raise unknown_keys()
        return frame

    def remove(self, tenant: str, key_id: str) -> None:
        """Forget keys; UnknownKeysError when the tenant has none under the id."""
        with self._changing:
            self.find(tenant, key_id)
            self._storage.remove({key_id})
            with self._looking:
                self._forget({key_id})

    def _drop(self, unreadable: Entry) -> None:
        with self._changing:
            with self._looking:
                entry = self._entries.get(unreadable.id)
            if entry is None or entry.created != unreadable.created:  # they have been registered anew
                return
            with suppress(StorageError):  # what is left of them counts for nothing
                self._storage.remove({entry.id})
            with self._looking:
                self._forget({entry.id})

    def evict_expired(self) -> int:
        """Forget what is over, and have the storage keep when the rest was used; returns how many keys went."""
        with self._changing:
            redate = self._clock.look(self._storage.take_confirmation())
            if redate is not None:
                self._redate(redate)
                self._noted = -inf
            with self._looking:
                gone = set(self._to_go(None))
                used = [self._entries[key_id] for key_id in self._touched - gone]
                self._touched.clear()
            if gone:
                self._storage.remove(gone)
            if used:
                self._storage.note_use(used)
            if self._clock() - self._noted >= SEEN_SECONDS:
                self._note_seen()
            with self._looking:
                self._forget(gone)
        return len(gone)

    def purge(self, tenants: Collection[str]) -> int:
        """Forget all that tenants have, whatever the clock says; returns how many keys went."""
        with self._changing:
            with self._looking:
                gone = {key_id for key_id, entry in self._entries.items() if entry.tenant in tenants}
            if gone:
                self._storage.remove(gone)
            with self._looking:
                self._forget(gone)
        return len(gone)

    def close(self) -> None:
        """Keep what there is to keep; the store is not used after that."""
        self.evict_expired()
        self._note_seen()
        self._storage.close()

    def _to_go(self, new: Entry | None) -> Iterator[str]:
        """Ids of what is over, and of what has to go to make room."""
        left = OrderedDict(self._entries)
        for key_id, entry in self._entries.items():
            if self._is_over(entry) or (new is not None and key_id == new.id):
                del left[key_id]
                yield key_id
        sizes: Counter[str] = Counter()
        for entry in (*left.values(), *((new,) if new else ())):
            sizes[entry.tenant] += entry.size
        while sizes and (who := self._who_gives(sizes, new)):
            key_id = next(key_id for key_id, entry in left.items() if entry.tenant == who)
            sizes[who] -= left.pop(key_id).size
            yield key_id

    def _who_gives(self, sizes: Counter[str], new: Entry | None) -> str | None:
        """The tenant whose oldest keys go next, None when there is room."""
        for tenant, size in sizes.items():
            if size > self._limits.quota:
                return tenant
        if sizes.total() <= self._limits.capacity:
            return None
        # One who has nothing but what comes in now gives nothing.
        return max(sizes, key=lambda tenant: sizes[tenant] - (new.size if new and new.tenant == tenant else 0))

    def _is_over(self, entry: Entry) -> bool:
        return not self._clock.is_doubted and self._clock() - entry.used > self._limits.seconds

    def _redate(self, redate: Redate) -> None:
        """Have all keys been used at another time; the order of use stays what it is."""
        with self._looking:
            for key_id, entry in list(self._entries.items()):
                used = redate(entry.used)
                if used != entry.used:
                    self._entries[key_id] = replace(entry, used=used)
                    self._touched.add(key_id)

    def _note_seen(self) -> None:
        self._noted = self._clock()
        with suppress(StorageError):  # a full disk does no more harm than that the next start may have doubts
            self._storage.note_seen(Seen(self._noted, self._clock.doubted_since))

    def _forget(self, gone: Collection[str]) -> None:
        for key_id in gone:
            self._entries.pop(key_id, None)
            self._touched.discard(key_id)


def unknown_keys() -> UnknownKeysError:
    """The error that says so."""
    return UnknownKeysError("there are no evaluation keys under this id (any more): register them again")

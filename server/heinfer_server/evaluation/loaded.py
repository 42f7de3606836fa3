"""Which keys a worker process holds loaded, and which of them stay when others are loaded."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping

from heinfer_server.keys.store import KeyStore

MOST_LOADED_KEYS = 64
"""Clients whose keys a worker keeps loaded, where there is room for so many."""


class LoadedKeys:
    """Ids of the keys that a process holds loaded, as the service has told it.

    Args:
        registered: who is still registered.
        most: of them at a time.
    """

    def __init__(self, registered: KeyStore, most: int) -> None:
        self._registered = registered
        self._most = most
        self._ids: OrderedDict[str, None] = OrderedDict()  # the least recently used first

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._ids

    @property
    def gone(self) -> tuple[str, ...]:
        """Those that nobody has registered any more."""
        return tuple(key_id for key_id in self._ids if key_id not in self._registered)

    def add(self, key_id: str) -> None:
        """The process has loaded them, or had them loaded already."""
        self._ids[key_id] = None

    def use(self, key_id: str) -> None:
        """An evaluation has used them; they may have been forgotten meanwhile."""
        if key_id in self._ids:
            self._ids.move_to_end(key_id)

    def forget(self, *key_ids: str) -> None:
        """The process is told to let go of them."""
        for key_id in key_ids:
            del self._ids[key_id]

    def clear(self) -> None:
        """Another process is started."""
        self._ids.clear()

    def make_room(self, key_id: str) -> tuple[str, ...]:
        """Forget those that have to go before others are loaded, or that nobody has registered any more."""
        owners = {other: self._registered.tenant_of(other) for other in self._ids if other != key_id}
        live = {other: tenant for other, tenant in owners.items() if tenant is not None}
        keep = with_room(live, self._registered.tenant_of(key_id), self._most)
        gone = tuple(other for other in owners if other not in keep)
        self.forget(*gone)
        return gone


def with_room(loaded: Mapping[str, str], tenant: str | None, most: int) -> set[str]:
    """Ids of the loaded keys that stay when a tenant's are loaded as well, of `most` at most.

    Who has most of them gives, its least recently used first: nobody pushes out those who have less. So one who comes
    with many sets in rotation pushes out its own.

    Args:
        loaded: whose each is, by id; the least recently used first.
    """
    left = dict(loaded)
    numbers = Counter(left.values())
    numbers[tenant or ""] += 1
    while left and len(left) >= most:
        gives = max(left, key=lambda key_id: numbers[left[key_id]])  # among equals the first, used longest ago
        numbers[left.pop(gives)] -= 1
    return set(left)

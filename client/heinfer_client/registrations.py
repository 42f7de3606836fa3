"""Which evaluation keys a client has the service forget, and when: what nobody will use again is not left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from heinfer.system import Renewed
from heinfer_client.messages import Request

FAREWELL_SECONDS = 2.0
"""That all may take which a client has to say when it closes, and each word that it says before that."""

_MOST = 64
"""Ids that are remembered, the latest: for more there would be no time in the end."""


class Registrations(Renewed):
    """Ids of one client's evaluation keys that are to be forgotten, and how many calls use which.

    A process that has been forked begins with none: they are its parent's, which goes on with them.
    """

    def begin(self) -> None:
        self._lock = Lock()
        self._last: dict[str, None] = {}  # to be forgotten when the client closes
        self._retired: dict[str, None] = {}  # as soon as no call uses them
        self._users: Counter[str] = Counter()

    def own(self, key_id: str) -> None:
        """Note keys that this client has registered and that are of no use without it."""
        with self._lock:
            self._last[key_id] = None
            for oldest in list(self._last)[:-_MOST]:
                del self._last[oldest]

    def owns(self, key_id: str) -> bool:
        """Whether they have been noted so, in this process."""
        with self._lock:
            return key_id in self._last

    def retire(self, key_id: str) -> None:
        """Note keys in whose place others have come."""
        with self._lock:
            self._last.pop(key_id, None)
            self._retired[key_id] = None

    @contextmanager
    def used(self, key_id: str) -> Iterator[None]:
        """Around a call that uses keys, which stay until it is over."""
        lock = self._lock
        with lock:
            self._users[key_id] += 1
        try:
            yield
        finally:
            if lock is self._lock:  # else this is a child, forked meanwhile
                with lock:
                    self._users[key_id] -= 1

    def due(self) -> Sequence[Request]:
        """What to say now, once, of retired keys that no call uses; what fails is said again when the client closes."""
        with self._lock:
            ids = [key_id for key_id in self._retired if not self._users[key_id]]
            for key_id in ids:
                del self._retired[key_id], self._users[key_id]
                self._last[key_id] = None
        return [_deletion(key_id) for key_id in ids]

    def heard(self, said: Request) -> None:
        """Note that the service has answered."""
        with self._lock:
            self._last.pop(said.path.rpartition("/")[2], None)

    def farewell(self) -> Sequence[Request]:
        """All that is left to be said, of the latest keys first; nothing is left after that."""
        with self._lock:
            ids = [*self._last, *self._retired]
            self._last.clear()
            self._retired.clear()
        return [_deletion(key_id) for key_id in reversed(ids)]


def _deletion(key_id: str) -> Request:
    return Request("DELETE", f"/keys/{key_id}", seconds=FAREWELL_SECONDS)

"""Clients' evaluation keys, in memory, within a bound."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass

from heinfer.errors import SettingError, UnknownKeysError

_ID_BYTES = 32


@dataclass(frozen=True)
class EvaluationKeys:
    """One client's evaluation keys for one model, as the frame that came and was found to be right."""

    model: str
    frame: bytes


class KeyStore:
    """Keys by an id that nobody can guess; the least recently used ones go when the memory is full."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[str, EvaluationKeys] = OrderedDict()
        self._used = 0

    def add(self, keys: EvaluationKeys) -> str:
        """Keep keys and return their id; SettingError when they alone exceed the memory for keys."""
        if len(keys.frame) > self._capacity:
            raise SettingError(
                f"one client's keys take {len(keys.frame)} bytes, the memory for keys has {self._capacity}"
            )
        while self._used + len(keys.frame) > self._capacity:
            self.remove(next(iter(self._keys)))
        key_id = secrets.token_urlsafe(_ID_BYTES)
        self._keys[key_id] = keys
        self._used += len(keys.frame)
        return key_id

    def get(self, key_id: str) -> EvaluationKeys:
        """Return keys and count them as used now; UnknownKeysError when there are none under the id."""
        if key_id not in self._keys:
            raise _unknown()
        self._keys.move_to_end(key_id)
        return self._keys[key_id]

    def remove(self, key_id: str) -> None:
        """Forget keys; UnknownKeysError when there are none under the id."""
        try:
            keys = self._keys.pop(key_id)
        except KeyError:
            raise _unknown() from None
        self._used -= len(keys.frame)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def __len__(self) -> int:
        return len(self._keys)


def _unknown() -> UnknownKeysError:
    return UnknownKeysError("there are no evaluation keys under this id (any more): register them again")

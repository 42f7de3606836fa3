"""One client's evaluation keys on the native backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heinfer.backends.native.library import library
from heinfer.backends.native.ring import NativeRing, Words
from heinfer.errors import MissingKeyError


class NativeKeys:
    """Keys, expanded and without the parts that no operation needs.

    Attributes:
        handle: the library's object.
    """

    def __init__(self, ring: NativeRing, levels: Mapping[int, int], threads: int = 1) -> None:
        """Take keys for use up to the given level: by step, 0 for relinearization (TypedCircuit.key_levels)."""
        self._levels = dict(levels)
        self._threads = threads
        self._steps: set[int] = set()
        self.handle = library().Keys(ring.handle)

    def add(self, step: int, digits: Words, seeds: Sequence[bytes]) -> None:
        """Add a key that has been checked, unless nothing needs it.

        Args:
            digits: (l + 1, l + 2, N) words b_j over the primes of a level l and the special one; l is not below the
                level of use.
            seeds: l + 1 seeds of a_j.

        Raises:
            MissingKeyError: when the key is for lower levels only.
        """
        if step in self._levels:
            if len(seeds) <= self._levels[step]:
                raise MissingKeyError(f"the key of step {step} is for use below level {self._levels[step]} only")
            self.handle.add(step, self._levels[step] + 1, digits, b"".join(seeds), self._threads)
            self._steps.add(step)

    def require_all(self) -> None:
        """Raise MissingKeyError unless there is every key."""
        for step in sorted(self._levels.keys() - self._steps):
            what = f"evaluation key for a rotation by {step}" if step else "relinearization key"
            raise MissingKeyError(f"no {what}: register the keys the manifest lists")

    @property
    def bytes(self) -> int:
        """Memory that they take."""
        return int(self.handle.bytes)

"""Evaluation keys that come in pieces: in memory until they are whole, then registered as any others."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from math import inf

from heinfer.errors import (
    BusyError,
    PayloadTooLargeError,
    UnknownUploadError,
    UploadDigestError,
    UploadIncompleteError,
    UploadOffsetError,
)
from heinfer_server.models import KeySet

UPLOADS_AT_ONCE = 16
UPLOADS_OF_A_TENANT = 8
STILL_SECONDS = 10.0
"""Seconds without progress after which the same tenant's upload may evict this one; longer than a client's pauses."""

ABANDONED_SECONDS = 60.0
"""Seconds without progress after which any tenant's upload may evict this one; longer than the slowest piece takes."""

CHUNK_BYTES = 1 << 22
"""The most that one piece may have: it lies in memory once more while it comes."""


@dataclass
class Upload:
    """One set of keys on its way; its id is the one that they will have.

    Attributes:
        tenant: who sends them.
        key_set: that they are to be of.
        digest: hexadecimal SHA-256 of all of it, as it was announced.
        size: bytes of all of it.
        touched: when the last piece came.
        paced: until when the bytes that have come are enough; no later than the last piece.
        is_refused: whether all of it came, and the keys could not be kept.
        data: what has come.
    """

    tenant: str
    key_set: KeySet
    digest: str
    size: int
    touched: float
    paced: float
    is_refused: bool = False
    data: bytearray = field(default_factory=bytearray, repr=False)

    @property
    def offset(self) -> int:
        """Where the next piece begins."""
        return len(self.data)

    def whole(self) -> bytes:
        """All of it.

        Raises:
            UploadIncompleteError: when pieces are missing.
            UploadDigestError: when it is not what was announced.
        """
        if self.offset < self.size:
            raise UploadIncompleteError(f"{self.offset} of {self.size} bytes have come: send the rest first")
        if sha256(self.data).hexdigest() != self.digest:
            raise UploadDigestError("the bytes that came are not those that were announced: send them again")
        return bytes(self.data)


class Uploads:
    """Uploads by id. Those that stand still are over after a while, or as soon as another needs their place.

    Others of their tenant may have it soon, those of other tenants later; to other tenants, an upload slower than
    BODY_SECONDS_PER_MIB counts as stalled. One that was refused gives way at once: it waits only in case that its
    sender tries again. A tenant with fewer uploads than another, the new one counted, gets a place of the other's: no
    two tenants keep all places, and nobody loses the only one.

    Args:
        capacity: bytes of all that are under way together, as they were announced.
        seconds: after which one that stands still is over.
        clock: seconds that only go up.
        seconds_per_mib: that a MiB of it may take.
    """

    def __init__(
        self,
        capacity: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        seconds_per_mib: float = 10.0,
    ) -> None:
        self._capacity = capacity
        self._seconds = seconds
        self._clock = clock
        self._seconds_per_byte = seconds_per_mib / (1 << 20)
        self._uploads: dict[str, Upload] = {}

    def __len__(self) -> int:
        self._drop_those_over()
        return len(self._uploads)

    def open(self, upload_id: str, tenant: str, key_set: KeySet, digest: str, size: int) -> Upload:
        """Begin an upload, or go on with the one that has begun; BusyError when too much is under way."""
        self._drop_those_over()
        found = self._uploads.get(upload_id)
        if found is not None:
            return found
        now = self._clock()
        rest = _rest_with_room(self._uploads, tenant, size, self._capacity, now)
        if rest is None:
            raise BusyError("too many uploads of keys are under way: try again later")
        self._uploads = rest
        upload = self._uploads[upload_id] = Upload(tenant, key_set, digest, size, now, now)
        return upload

    def get(self, tenant: str, upload_id: str) -> Upload:
        """An upload of the tenant; UnknownUploadError when there is none under the id."""
        self._drop_those_over()
        upload = self._uploads.get(upload_id)
        if upload is None or upload.tenant != tenant:
            raise unknown_upload()
        return upload

    def room(self, tenant: str, upload_id: str, offset: int) -> int:
        """The most bytes that a piece at an offset may have.

        Raises:
            UnknownUploadError: when there is no such upload.
            UploadOffsetError: when the next piece does not begin there.
        """
        upload = self.get(tenant, upload_id)
        if offset != upload.offset:
            raise UploadOffsetError(f"the next piece begins at {upload.offset}: ask for the state and go on from there")
        return min(CHUNK_BYTES, upload.size - upload.offset)

    def append(self, tenant: str, upload_id: str, offset: int, piece: bytes) -> Upload:
        """Take a piece, all of it or nothing; raises what `room` does, for another may have come in the meantime."""
        if len(piece) > self.room(tenant, upload_id, offset):
            raise PayloadTooLargeError(f"a piece has at most {CHUNK_BYTES} bytes, and no more than are missing")
        upload = self._uploads[upload_id]
        upload.data += piece
        if piece:  # nothing is no sign of life
            upload.touched = now = self._clock()
            upload.paced = min(now, upload.paced + len(piece) * self._seconds_per_byte)
        return upload

    def drop(self, upload_id: str) -> None:
        """Forget an upload, if it is there."""
        self._uploads.pop(upload_id, None)

    def purge(self, tenants: Collection[str]) -> None:
        """Forget all uploads of tenants."""
        self._uploads = {i: upload for i, upload in self._uploads.items() if upload.tenant not in tenants}

    def _drop_those_over(self) -> None:
        now = self._clock()
        for upload_id in [i for i, upload in self._uploads.items() if now - upload.touched > self._seconds]:
            del self._uploads[upload_id]


def unknown_upload() -> UnknownUploadError:
    """The error that says so."""
    return UnknownUploadError("there is no upload under this id (any more): begin it again")


def _rest_with_room(
    uploads: Mapping[str, Upload], tenant: str, size: int, capacity: int, now: float
) -> dict[str, Upload] | None:
    """Those that may stay when the tenant begins another of that size; None where not enough may go."""
    rest = dict(uploads)
    while (
        len(_of(rest, tenant)) >= UPLOADS_OF_A_TENANT
        or len(rest) >= UPLOADS_AT_ONCE
        or sum(upload.size for upload in rest.values()) + size > capacity
    ):
        upload_id = _to_give_way(rest, tenant, now)
        if upload_id is None:
            return None
        del rest[upload_id]
    return rest


def _to_give_way(uploads: Mapping[str, Upload], tenant: str, now: float) -> str | None:
    """Id of the upload that goes first: of those of the tenant that stand still, of any's, of who has more than it."""
    own = _of(uploads, tenant)
    still = _longest_still(own, now - STILL_SECONDS)
    if still is not None or len(own) >= UPLOADS_OF_A_TENANT:
        return still
    return _longest_still(uploads, now - ABANDONED_SECONDS) or _of_who_has_most(uploads, len(own) + 1)


def _of_who_has_most(uploads: Mapping[str, Upload], number: int) -> str | None:
    """Of the tenant with most of them, if that has more than a number: the one that has stood still longest."""
    tenants = {upload.tenant for upload in uploads.values()}
    most = max((_of(uploads, tenant) for tenant in tenants), key=len, default={})
    return _longest_still(most, inf) if len(most) > number else None


def _of(uploads: Mapping[str, Upload], tenant: str) -> dict[str, Upload]:
    return {upload_id: upload for upload_id, upload in uploads.items() if upload.tenant == tenant}


def _longest_still(uploads: Mapping[str, Upload], since: float) -> str | None:
    still = {i: upload.paced for i, upload in uploads.items() if upload.is_refused or upload.paced < since}
    return min(still, key=lambda upload_id: still[upload_id], default=None)

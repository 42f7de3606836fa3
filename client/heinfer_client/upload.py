"""Evaluation keys to the service: at once where they are short, else in pieces that survive what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from pydantic import BaseModel, Field, ValidationError

from heinfer.errors import ServiceError, ServiceUnavailableError, UnknownUploadError, UploadOffsetError
from heinfer_client.connections import Connections
from heinfer_client.messages import Reply, Request, require_success
from heinfer_client.progress import Advance
from heinfer_client.replicas import LOSSES, several_services
from heinfer_client.retries import Tries

WHOLE_BYTES = 1 << 22
"""Keys of no more are sent at once."""

PIECE_BYTES = 1 << 20

_DESCRIPTION = "Sending evaluation keys"

_ID = r"^[A-Za-z0-9_-]{16,64}$"


class _Registered(BaseModel):
    keys: str = Field(pattern=_ID)


class _State(BaseModel):
    upload: str = Field(pattern=_ID)
    offset: int = Field(ge=0)
    is_registered: bool = False


@dataclass(frozen=True)
class Sent:
    """Keys that the service has.

    Attributes:
        key_id: their id.
        is_own: whether it was this client that registered them: not when they were there before it had sent them.
    """

    key_id: str
    is_own: bool


async def send_keys(connections: Connections, model_path: str, manifest: str, body: bytes) -> Sent:
    """Register a frame of keys, within the time of one request when all is sent at once, else of one for each piece.

    Pieces are sent again from where the service has them, after a pause, when one is lost or the service has no room.
    Where uploads get lost that have just begun, all is sent at once: another service may have answered.

    Args:
        manifest: digest of the one that they were made from.

    Raises:
        ServiceUnavailableError: when nothing has come of several requests in a row.
        ServiceError: when the service refuses, or its answers make no sense.
    """
    whole = Request("POST", f"{model_path}/keys", {"manifest": manifest}, body, upload=_DESCRIPTION)
    if len(body) <= WHOLE_BYTES:
        return _registered(await Tries(connections).ask(whole))
    with connections.bars.bar(_DESCRIPTION, len(body)) as advance:
        pieces = await connections.computed(_Pieces, connections, model_path, manifest, body, advance)
        return await pieces.send()


class _Pieces:
    """One upload: how far it has come, and how often nothing has come of it."""

    def __init__(self, connections: Connections, model_path: str, manifest: str, body: bytes, advance: Advance) -> None:
        self._connections = connections
        self._body = body
        announced = {"manifest": manifest, "size": str(len(body)), "sha256": sha256(body).hexdigest()}
        self._begin = Request("POST", f"{model_path}/uploads", announced)
        self._whole = Request("POST", f"{model_path}/keys", {"manifest": manifest}, body)
        self._advance = advance
        self._furthest = 0
        self._losses = 0
        self._tries = Tries(connections)

    async def send(self) -> Sent:
        while True:
            try:
                return await self._from_where_it_is()
            except (ServiceUnavailableError, UnknownUploadError, UploadOffsetError) as error:
                if not isinstance(error, ServiceUnavailableError) and error.status:  # the service's own word
                    self._losses += 1
                    if self._losses == LOSSES:
                        return await self._at_once(error)
                await self._tries.pause_after(error)

    async def _at_once(self, reason: ServiceError) -> Sent:
        reply = await Tries(self._connections).ask(self._whole)
        if not reply.is_success:
            raise several_services(reason, "uploads and keys") from reason
        return _registered(reply)

    async def _from_where_it_is(self) -> Sent:
        is_own = self._furthest == len(self._body)
        state = await self._ask(self._begin)  # begins it, or says where it is
        if state.is_registered:
            return Sent(state.upload, is_own)
        path = f"/uploads/{state.upload}"
        while state.offset < len(self._body):
            piece = self._body[state.offset : state.offset + PIECE_BYTES]
            expected = state.offset + len(piece)
            state = await self._ask(Request("PATCH", path, {"offset": str(state.offset)}, piece))
            if state.offset != expected:
                raise UploadOffsetError("the service says that another piece has come than was sent")
        return _registered(await self._tries.attempt(Request("POST", path)))

    async def _ask(self, request: Request) -> _State:
        reply = await self._tries.attempt(request)
        require_success(reply)
        try:
            state = _State.model_validate_json(reply.body)
        except ValidationError:
            raise _nonsense(reply) from None
        if state.offset > len(self._body):
            raise _nonsense(reply)
        # Progress is a whole piece, or all the rest: else a hostile service could keep us sending for ever.
        if self._furthest < min(self._furthest + PIECE_BYTES, len(self._body)) <= state.offset:
            self._advance(state.offset - self._furthest)
            self._furthest, self._tries = state.offset, Tries(self._connections)
        return state


def _registered(reply: Reply) -> Sent:
    require_success(reply)
    try:
        return Sent(_Registered.model_validate_json(reply.body).keys, is_own=True)
    except ValidationError:
        raise _nonsense(reply) from None


def _nonsense(reply: Reply) -> ServiceError:
    return ServiceError("the service's answer to a registration of keys is malformed", status=reply.status)

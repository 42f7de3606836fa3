"""Evaluations that take long: begun by one request, then asked for, with a progress bar."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex
from typing import Literal, NoReturn

from pydantic import BaseModel, Field, ValidationError

from heinfer.errors import HeinferError, ServiceError, ServiceUnavailableError, UnknownJobError
from heinfer_client.connections import Connections
from heinfer_client.messages import Reply, Request, require_success
from heinfer_client.progress import Advance
from heinfer_client.replicas import LOSSES, several_services
from heinfer_client.retries import Tries

LONG_SECONDS = 2.0
"""An evaluation that the service expects to take longer is begun as a job."""

_FAREWELL_SECONDS = 5.0
"""That a service may take to hear that a job is not wanted any more, while its user wants to be gone."""

_UNDER_WAY = ("waiting", "running")

_FIRST_LOOK = 0.2
_LONGEST_LOOK = 1.0


class _State(BaseModel):
    job: str = Field(pattern=r"^[A-Za-z0-9_-]{16,64}$")
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    progress: float = Field(ge=0, le=1)


async def evaluate_as_job(connections: Connections, query: dict[str, str], body: bytes, limit: int) -> Reply:
    """Have inputs evaluated, and return the reply that has the result; not in time, the job is cancelled.

    Requests that get lost are sent again, and a job that the service has forgotten is begun again.

    Args:
        query: model and keys.
        limit: bytes that the result may have.

    Raises:
        ServiceUnavailableError: when time is over, or nothing has come of several requests in a row.
        ServiceError: what the job has failed with, or what the service refuses.
    """
    with connections.bars.bar("Evaluating", 100) as advance:
        return await _Job(connections, query, body, limit, advance).reply()


class _Job:
    def __init__(
        self, connections: Connections, query: dict[str, str], body: bytes, limit: int, advance: Advance
    ) -> None:
        self._connections = connections
        self._begin = Request("POST", "/jobs", query, body, idempotency_key=token_hex(16))
        self._limit = limit
        self._tries = Tries(connections)
        self._advance = advance
        self._shown = 0
        self._losses = 0
        self._id: str | None = None

    async def reply(self) -> Reply:
        try:
            return await self._persist()
        except (KeyboardInterrupt, CancelledError):
            if self._id is not None:  # nobody will ask for it any more
                with suppress(HeinferError):
                    await self._connections.send(replace(self._cancel(), seconds=_FAREWELL_SECONDS))
            raise

    async def _persist(self) -> Reply:
        while True:
            try:
                return await self._from_where_it_is()
            except UnknownJobError as error:
                self._id = None
                self._losses += 1
                if self._losses == LOSSES:
                    raise several_services(error, "jobs") from None
                await self._tries.pause_after(error)
            except ServiceUnavailableError as error:
                await self._tries.pause_after(error)

    async def _from_where_it_is(self) -> Reply:
        if self._id is None:
            state = _state(await self._tries.attempt(self._begin))
            self._id = state.job
        else:
            state = await self._look()
        look = _FIRST_LOOK
        while state.state in _UNDER_WAY:
            if self._tries.left <= look:
                await self._give_up()
            await self._connections.pause(look)
            look = min(_LONGEST_LOOK, 1.5 * look)
            state = await self._look()
        reply = await self._tries.attempt(Request("GET", f"/jobs/{self._id}/result", limit=self._limit))
        require_success(reply)
        return reply

    async def _look(self) -> _State:
        state = _state(await self._tries.attempt(Request("GET", f"/jobs/{self._id}")))
        if state.state in _UNDER_WAY:
            self._tries.progressed()
        self._advance(max(0, int(100 * state.progress) - self._shown))
        self._shown = max(self._shown, int(100 * state.progress))
        return state

    def _cancel(self) -> Request:
        return Request("DELETE", f"/jobs/{self._id}")

    async def _give_up(self) -> NoReturn:
        with suppress(ServiceError):  # it is over anyway
            await Tries(self._connections, _FAREWELL_SECONDS).ask(self._cancel())
        self._tries.end()
        raise ServiceUnavailableError(
            f"the job was not done within {self._connections.timeout:g} seconds: give a longer timeout"
        )


def _state(reply: Reply) -> _State:
    require_success(reply)
    try:
        return _State.model_validate_json(reply.body)
    except ValidationError:
        raise ServiceError("the service's answer about a job is malformed", status=reply.status) from None

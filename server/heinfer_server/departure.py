"""Clients who go away while their request waits: what nobody will read is not computed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from starlette.requests import ClientDisconnect, Request

Departure: TypeAlias = asyncio.Future[None]
"""Done when the client of a request has gone away."""


@asynccontextmanager
async def departure_of(request: Request) -> AsyncIterator[Departure]:
    """Watch the connection of a request whose body has been read."""
    gone = asyncio.create_task(_until_gone(request))
    try:
        yield gone
    finally:
        gone.cancel()


async def unless(gone: Departure, turn: Coroutine[Any, Any, object], give_up: Callable[[], object]) -> None:
    """Wait for one's turn, but no longer than the client does.

    Args:
        gone: when the client goes away.
        turn: waits; is cancelled when the turn is not needed any more.
        give_up: called when the turn has come all the same.

    Raises:
        ClientDisconnect: when the client has gone away, be it in the moment of its turn.
    """
    waiting: asyncio.Task[Any] = asyncio.create_task(turn)
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise ClientDisconnect
    except BaseException:  # this coroutine may be cancelled, too
        if not waiting.cancel():
            give_up()
        raise


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

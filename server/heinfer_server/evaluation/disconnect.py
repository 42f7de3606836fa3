"""Clients that disconnect while their request waits: what nobody will read is not computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, TypeAlias

from heinfer.errors import DeadlineError

Disconnect: TypeAlias = asyncio.Future[None]
"""Done when the client of a request has disconnected."""


class DisconnectedError(Exception):
    """The client disconnected or cancelled; not an error."""


async def unless(
    gone: Disconnect, turn: Coroutine[Any, Any, object], give_up: Callable[[], object], ends: float = inf
) -> None:
    """Wait for a turn as long as the client stays connected.

    Args:
        gone: done when the client disconnects.
        turn: waits for the turn; cancelled when the client disconnects first.
        give_up: called when the turn came although it was cancelled.
        ends: when it is not worth to wait any more, by the clock of the event loop.

    Raises:
        DisconnectedError: when the client has disconnected, also at the very moment of its turn.
        DeadlineError: when the turn does not come in time.
    """
    waiting: asyncio.Task[Any] = asyncio.create_task(turn)
    try:
        async with asyncio.timeout_at(ends):
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise DisconnectedError
    except BaseException as error:  # this coroutine may be cancelled, too
        if not waiting.cancel() and not waiting.cancelled():
            give_up()
        if isinstance(error, TimeoutError):
            text = "the turn of this request did not come within the time that it gave"
            raise DeadlineError(text) from None
        raise

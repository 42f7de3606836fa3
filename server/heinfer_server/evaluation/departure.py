"""Clients who go away while their request waits: what nobody will read is not computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Departure: TypeAlias = asyncio.Future[None]
"""Done when the client of a request has gone away."""


class DepartedError(Exception):
    """Whoever wanted an evaluation does not want it any more: no error of anybody's."""


async def unless(gone: Departure, turn: Coroutine[Any, Any, object], give_up: Callable[[], object]) -> None:
    """Wait for one's turn, but no longer than the client does.

    Args:
        gone: when the client goes away.
        turn: waits; is cancelled when the turn is not needed any more.
        give_up: called when the turn has come all the same.

    Raises:
        DepartedError: when the client has gone away, be it in the moment of its turn.
    """
    waiting: asyncio.Task[Any] = asyncio.create_task(turn)
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise DepartedError
    except BaseException:  # this coroutine may be cancelled, too
        if not waiting.cancel() and not waiting.cancelled():
            give_up()
        raise

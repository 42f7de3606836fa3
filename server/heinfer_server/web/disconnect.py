"""Connections that end while their request is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from heinfer_server.evaluation.disconnect import Disconnect


@asynccontextmanager
async def disconnect_of(request: Request) -> AsyncIterator[Disconnect]:
    """Watch the connection of a request whose body has been read."""
    gone = asyncio.create_task(_until_gone(request))
    try:
        yield gone
    finally:
        gone.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

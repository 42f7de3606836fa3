"""Connections for asyncio: all of one event loop in one process; what is computed is computed in threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial

import httpx

from heinfer.errors import SettingError
from heinfer_client.address import Address
from heinfer_client.answers import Answer
from heinfer_client.connections import Connections, P, T
from heinfer_client.messages import Reply, Request
from heinfer_client.progress import Advance, Bars
from heinfer_client.transfer import chunks


class LoopConnections(Connections):
    """An httpx client for asyncio.

    Args:
        transport: of the user's own, instead of the network.
    """

    def __init__(
        self, address: Address, timeout: float, bars: Bars, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        if transport is None:
            transport = httpx.AsyncHTTPTransport(**address.network, trust_env=False)
        self._http = httpx.AsyncClient(transport=transport, **address.options)
        self._preparing = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        super().__init__(address, timeout, bars)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def computed(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        # A task, as asyncio.to_thread needs one, would be cancelled as well when the event loop ends.
        run = partial(copy_context().run, work, *arguments, **named)
        thread = asyncio.get_running_loop().run_in_executor(None, run)
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            while not thread.done():  # nobody else may begin where it has not ended
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({thread})
            thread.exception()  # nobody else asks for it
            raise

    async def alone(self, flow: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
        async with self._preparing:
            return await flow(*arguments, **named)

    @property
    def _is_at_home(self) -> bool:
        return self._process in (0, os.getpid()) and self._loop in (None, asyncio.get_running_loop())

    def _require_usable(self) -> None:
        super()._require_usable()
        self._process = self._process or os.getpid()
        if self._process != os.getpid():  # both would read from the same sockets
            raise SettingError("this client has been used in the process that this one was forked from: make one here")
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:  # its connections would fail, now and then
            raise SettingError("this client has been used in another event loop: make one in each (asyncio.run is one)")

    async def _exchange(self, request: Request, seconds: float, advance: Advance) -> Reply:
        async def pieces(body: bytes) -> AsyncIterator[bytes]:
            for piece in chunks(body):
                yield piece
                advance(len(piece))

        content = None if request.body is None else pieces(request.body)
        async with asyncio.timeout(seconds), self._http.stream(**self._head(request), content=content) as response:
            answer = Answer(request, response)
            async for chunk in response.aiter_bytes():
                answer.add(chunk)
            return answer.reply()

    async def _disconnect(self) -> None:
        await self._http.aclose()

"""Connections for ordinary code: shared by its threads, each of which blocks, and never by two processes."""

from __future__ import annotations

import codecs
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from threading import RLock
from time import sleep
from typing import Any

import httpx
import numpy.ma  # noqa: F401
import PIL.ImageFile  # noqa: F401

from heinfer.errors import SettingError
from heinfer_client.address import Address
from heinfer_client.answers import Answer
from heinfer_client.connections import Connections, P, T
from heinfer_client.deadlines import BoundedTransport, until, within
from heinfer_client.messages import Reply, Request
from heinfer_client.progress import Advance, Bars
from heinfer_client.transfer import chunks

# What others import at its first use only: a module that a thread imports while another forks is locked in the child.
codecs.lookup("idna")  # of names of hosts


def at_once(flow: Coroutine[Any, Any, T]) -> T:
    """The result of a flow that awaits BlockingConnections only, and so never waits for a loop."""
    try:
        flow.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("a flow waits for an event loop")


class BlockingConnections(Connections):
    """An httpx client, whose requests, pauses and computations take place in the thread that awaits them.

    A process that is forked inherits its parent's sockets, and who reads from one takes the other's answers. So a child
    opens connections of its own; those of the parent it lets go of without a word on them.

    Args:
        transport: of the user's own, instead of the network.
    """

    def __init__(self, address: Address, timeout: float, bars: Bars, transport: httpx.BaseTransport | None) -> None:
        self._transport = transport
        self._process = os.getpid()
        super().__init__(address, timeout, bars)

    def begin(self) -> None:
        super().begin()
        self._preparing = RLock()
        transport = BoundedTransport(self._address.network) if self._transport is None else self._transport
        self._http = httpx.Client(transport=transport, **self._address.options)

    async def pause(self, seconds: float) -> None:
        sleep(seconds)

    async def computed(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return work(*arguments, **named)

    async def alone(self, flow: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
        with self._preparing:
            return await flow(*arguments, **named)

    @property
    def _is_at_home(self) -> bool:
        return self._transport is None or self._process == os.getpid()

    def _require_usable(self) -> None:
        super()._require_usable()
        if not self._is_at_home:
            raise SettingError(
                "this client was made in another process with a transport of its own, which may be shared with that "
                "one: make another client here"
            )

    async def _exchange(self, request: Request, seconds: float, advance: Advance) -> Reply:
        work = partial(self._sent, request, seconds, advance)
        is_bounded = self._transport is None and not self._address.proxy.startswith("https")  # else TLS is in TLS
        return work() if is_bounded else within(seconds, work)

    def _sent(self, request: Request, seconds: float, advance: Advance) -> Reply:
        def pieces(body: bytes) -> Iterator[bytes]:
            for piece in chunks(body):
                yield piece
                advance(len(piece))

        content = None if request.body is None else pieces(request.body)
        with until(seconds), self._http.stream(**self._head(request), content=content) as response:
            answer = Answer(request, response)
            for chunk in response.iter_bytes():
                answer.add(chunk)
            return answer.reply()

    async def _disconnect(self) -> None:
        self._http.close()

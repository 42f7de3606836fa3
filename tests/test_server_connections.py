"""What the service's HTTP protocol does with connections that nobody should have to keep open."""

import asyncio
import socket
from collections.abc import Callable, Coroutine

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from heinfer_server import connections
from heinfer_server.connections import BoundedProtocol

SECONDS = 60.0
LONG = 20 << 20  # more than the buffers on the way hold
REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n"


async def long_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(bytes(LONG))(scope, receive, send)


def with_server(app: ASGIApp, use: Callable[[int, ServerState], Coroutine[None, None, None]]) -> None:
    """Serve an application in a loop of its own, and use it by its port; nothing may be open afterwards."""

    async def run() -> None:
        state = ServerState()
        config = uvicorn.Config(app, log_config=None, ws="none", lifespan="off")
        server = await asyncio.get_running_loop().create_server(
            lambda: BoundedProtocol(config=config, server_state=state, app_state={}), "127.0.0.1"
        )
        try:
            await use(server.sockets[0].getsockname()[1], state)
        finally:
            server.close()
            await server.wait_closed()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", [b"\r\n", b"Connection: close\r\n\r\n", b"\r\n" + (REQUEST + b"\r\n") * 3])
def test_an_answer_that_is_not_taken_does_not_keep_its_connection_open(end, monkeypatch):
    monkeypatch.setattr(connections, "ANSWER_SECONDS_PER_MIB", 0.001)

    async def use(port: int, state: ServerState) -> None:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(REQUEST + end)
            await until(lambda: len(state.connections) == 1)
            await until(lambda: not state.connections and not state.tasks)

    with_server(long_answer, use)


def test_an_answer_that_is_taken_late_is_taken_whole():
    async def take(port: int, state: ServerState) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: len(state.connections) == 1)
        (protocol,) = state.connections
        assert isinstance(protocol, BoundedProtocol)
        for _ in range(2):
            writer.write(REQUEST + b"\r\n")
            await until(lambda: protocol._answer_timer is not None)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(LONG) == bytes(LONG)
            await until(lambda: protocol._answer_timer is None)
        writer.close()
        await writer.wait_closed()
        await until(lambda: not state.connections)

    with_server(long_answer, take)

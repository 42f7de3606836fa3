"""What the service's HTTP protocol does with connections that nobody should have to keep open."""

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress

import pytest
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from heinfer_server.web import connections
from heinfer_server.web.connections import MAX_HEAD_BYTES, BoundedProtocol

SECONDS = 60.0
LONG = 4 << 20
BUFFER = 1 << 16  # of each side: an answer of LONG does not fit into both
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def long_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(bytes(LONG))(scope, receive, send)


def with_server(app: ASGIApp, use: Callable[[int, ServerState], Coroutine[None, None, None]]) -> None:
    """Serve an application in a loop of its own, and use it by its port; nothing may be open afterwards."""

    async def run() -> None:
        state = ServerState()
        config = uvicorn.Config(app, log_config=None, ws="none", lifespan="off", timeout_keep_alive=15)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        server = await asyncio.get_running_loop().create_server(
            lambda: BoundedProtocol(config=config, server_state=state, app_state={}), sock=listener
        )
        try:
            await use(listener.getsockname()[1], state)
        finally:
            server.close()
            await server.wait_closed()

    asyncio.run(run())


def connect(port: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    client.connect(("127.0.0.1", port))
    return client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    with suppress(ClientDisconnect):
        await Response(await Request(scope, receive).body())(scope, receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(status_code=404)(scope, receive, send)


async def begin(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    await send({"type": "http.response.body", "body": b"done"})


def answers_to(app: ASGIApp, *pieces: bytes) -> bytes:
    """Everything that a server sends until it closes, when it gets these pieces, each after an answer to the last."""
    received = bytearray()

    async def use(port: int, state: ServerState) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in pieces:
            writer.write(piece)
            if piece is not pieces[-1]:
                received.extend(await asyncio.wait_for(reader.read(1 << 16), SECONDS))
        received.extend(await asyncio.wait_for(reader.read(), SECONDS))
        writer.close()
        await writer.wait_closed()
        await until(lambda: not state.connections and not state.tasks)

    with_server(app, use)
    return bytes(received)


POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", POST + b"zz\r\n", POST + b"1\r\nxx\r\n"]
)
def test_what_is_no_http_is_answered_as_every_error(sent, caplog):
    head, _, body = answers_to(echo, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head.lower()
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body)["code"] == "malformed-request"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def chunked(*sizes: int) -> bytes:
    return b"".join(f"{size:x}\r\n".encode() + b"x" * size + b"\r\n" for size in sizes) + b"0\r\n\r\n"


CLOSING = POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def test_a_body_in_tiny_chunks_is_refused():
    head, _, body = answers_to(echo, POST + chunked(*[1] * 1000)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["code"] == "malformed-request"
    assert "too small" in json.loads(body)["detail"]


@pytest.mark.parametrize("sizes", [[1] * 60, [1100] * 1000, [1, 2100] * 100])
def test_a_body_in_chunks_of_a_sensible_size_is_taken(sizes):
    head, _, body = answers_to(echo, CLOSING + chunked(*sizes)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(body) == sum(sizes)


@pytest.mark.parametrize(
    "sent",
    [
        REQUEST + b"x: y\r\n" * 5_000 + b"\r\n",
        REQUEST + b"X: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET /" + b"y" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"Y" * MAX_HEAD_BYTES + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        POST + b"5\r\nhello\r\n0\r\n" + b"x: y\r\n" * 5_000 + b"\r\n",
        POST + b"0;x\r\n" + b"x: y\r\n" * 5_000 + b"\r\n",
        POST + b"0000 \t\r\n" + b"x: y\r\n" * 5_000 + b"\r\n",
    ],
)
def test_heads_and_trailers_have_a_bound_however_they_come(sent):
    head, _, body = answers_to(echo, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert json.loads(body)["code"] == "head-too-large"


def test_sizes_of_chunks_may_begin_with_zeros():
    body = bytes(20_000)
    answer = answers_to(echo, CLOSING + b"0004e20\r\n" + body + b"\r\n0000\r\n\r\n")
    assert answer.partition(b"\r\n\r\n")[2] == body


@pytest.mark.parametrize("trailer", [b"", b"x: y\r\n" * 100])
@pytest.mark.parametrize("body", [b"0\r\n" + bytes(20_000), b"", b"\r\n0\r\n" + bytes(20_000)])
def test_a_body_may_look_like_its_end(body, trailer):
    chunks = f"{len(body):x}\r\n".encode() + body + b"\r\n" if body else b""
    sent = CLOSING + chunks + b"0\r\n" + trailer + b"\r\n"
    assert answers_to(echo, sent).partition(b"\r\n\r\n")[2] == body
    sized = REQUEST + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    assert answers_to(echo, sized).partition(b"\r\n\r\n")[2] == body


def test_a_refused_request_of_head_has_no_body(caplog):
    answer = answers_to(echo, POST.replace(b"POST", b"HEAD") + chunked(*[1] * 1000))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_huge_head_behind_another_request_is_refused_as_well():
    lines = b"x: y\r\n" * 5_000
    answers = answers_to(refuse, REQUEST + b"\r\n" + REQUEST + lines + b"\r\n")
    assert answers.startswith(b"HTTP/1.1 404 ")
    assert b"HTTP/1.1 431 " in answers


def test_where_a_connection_is_too_many_the_longest_idle_goes(monkeypatch):
    monkeypatch.setattr(BoundedProtocol, "most", lambda _: 2)

    async def use(port: int, state: ServerState) -> None:
        first, second = [await opened(port, state) for _ in range(2)]
        for reader, writer in (first, second):  # kept alive
            writer.write(REQUEST + b"\r\n")
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
        third = await opened(port, state)
        assert await asyncio.wait_for(first[0].read(), SECONDS) == b""
        for reader, writer in (second, third):
            writer.write(REQUEST + b"Connection: close\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), SECONDS)).startswith(b"HTTP/1.1 404 ")
        for _, writer in (first, second, third):
            writer.close()

    with_server(refuse, use)


def test_many_that_come_at_once_make_as_many_go(monkeypatch):
    monkeypatch.setattr(BoundedProtocol, "most", lambda _: 5)

    async def use(port: int, state: ServerState) -> None:
        with ExitStack() as clients:
            for _ in range(10):  # all of them are there before the server's turn comes
                clients.enter_context(connect(port))
            await until(lambda: len(state.connections) == 5)
            await asyncio.sleep(0.05)
            assert len(state.connections) == 5

    with_server(refuse, use)


def test_where_none_is_idle_the_new_connection_goes(monkeypatch):
    monkeypatch.setattr(BoundedProtocol, "most", lambda _: 1)

    async def use(port: int, state: ServerState) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST)
        await until(lambda: bool(state.tasks))
        new_reader, new_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(new_reader.read(), SECONDS) == b""
        new_writer.close()
        writer.write(b"0\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(12), SECONDS)) == b"HTTP/1.1 200"
        writer.close()

    with_server(echo, use)


async def opened(port: int, state: ServerState) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that the server has taken before this returns."""
    before = set(state.connections)
    connection = await asyncio.open_connection("127.0.0.1", port)
    await until(lambda: bool(state.connections - before))
    return connection


@pytest.mark.parametrize(("app", "end"), [(refuse, b"\r\n\r\n"), (begin, b"begun")])
def test_what_is_no_http_after_an_answer_only_closes(app, end, caplog):
    answer = answers_to(app, POST, b"zz\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(end)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("end", [b"\r\n", b"Connection: close\r\n\r\n", b"\r\n" + (REQUEST + b"\r\n") * 3])
def test_an_answer_that_is_not_taken_does_not_keep_its_connection_open(end, monkeypatch):
    monkeypatch.setattr(connections, "ANSWER_SECONDS_PER_MIB", 0.001)

    async def use(port: int, state: ServerState) -> None:
        with connect(port) as client:
            client.sendall(REQUEST + end)
            await until(lambda: state.total_requests > 0)
            await until(lambda: not state.connections and not state.tasks)

    with_server(long_answer, use)


def test_an_answer_that_is_taken_late_is_taken_whole():
    async def take(port: int, state: ServerState) -> None:
        reader, writer = await asyncio.open_connection(sock=connect(port), limit=BUFFER)
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

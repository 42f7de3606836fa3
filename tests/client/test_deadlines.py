"""Deadlines of whole requests, wherever the other side dawdles; and what is left when one is over: nothing."""

import asyncio
import gc
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import httpx
import numpy as np
import pytest
from server_process import server_process
from tiny_model import LABELS, cleartext_scores, tiny_bundle

from heinfer.errors import ServiceUnavailableError
from heinfer_client import AsyncClient, Client
from heinfer_client.deadlines import BoundedTransport, until

SECONDS = 0.5
LATEST = SECONDS + 1.5  # on a busy machine
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)


@contextmanager
def server(serve: Callable[[socket.socket, Event], None]) -> Iterator[str]:
    """Where each connection is served so until the event is set."""
    over = Event()

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(Thread(target=one, args=(connection,)))
                threads[-1].start()

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            serve(connection, over)

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    threads = [Thread(target=accept)]
    threads[0].start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        listener.close()


def be_silent(_connection: socket.socket, over: Event) -> None:
    over.wait()


def dribble(connection: socket.socket, over: Event) -> None:
    while not over.wait(0.02):
        connection.sendall(b"y")


def read_slowly(connection: socket.socket, over: Event) -> None:
    while not over.wait(0.02):
        connection.recv(1)


def given_up_after(url: str) -> list[float]:
    """Seconds after which both clients give up, each saying that it was the deadline."""
    taken = []

    async def use() -> None:
        async with AsyncClient(url, model="tiny", timeout=SECONDS) as client:
            began = time.monotonic()
            with pytest.raises(ServiceUnavailableError, match="no whole answer"):
                await client.prepare()
            taken.append(time.monotonic() - began)

    with Client(url, model="tiny", timeout=SECONDS) as client:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError, match="no whole answer"):
            client.prepare()
        taken.append(time.monotonic() - began)
    asyncio.run(use())
    with warnings.catch_warnings():  # httpcore leaves the socket of a handshake that is cancelled to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return taken


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_of_a_server_that_says_nothing(scheme):
    with server(be_silent) as address:
        assert max(given_up_after(f"{scheme}://{address}")) < LATEST


@pytest.mark.parametrize(("scheme", "serve"), [("http", be_silent), ("http", dribble), ("https", be_silent)])
def test_of_a_proxy(monkeypatch, scheme, serve):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with server(serve) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://{address}")
        assert max(given_up_after("https://elsewhere.example")) < LATEST


def test_of_a_resolver(monkeypatch):
    over = Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20) and [])
    taken = []
    thread = Thread(target=lambda: taken.extend(given_up_after("http://elsewhere.example")))
    thread.start()
    time.sleep(2 * LATEST)
    over.set()  # asyncio waits for its thread
    thread.join()
    assert max(taken) < LATEST


def test_of_a_server_that_reads_slowly():
    with server(read_slowly) as address, httpx.Client(transport=BoundedTransport({}), timeout=60) as http:
        began = time.monotonic()
        with pytest.raises(TimeoutError), until(SECONDS):
            http.post(f"http://{address}", content=bytes(1 << 26))
        assert time.monotonic() - began < LATEST


def test_of_who_waits_for_a_connection():
    """Of its own: there may be so many only, and others have them all."""
    with server(be_silent) as address, httpx.Client(transport=BoundedTransport({}), timeout=60) as http:
        http._transport._pool._max_connections = 1

        def wait(seconds: float) -> float:
            began = time.monotonic()
            with pytest.raises(TimeoutError), until(seconds):
                http.get(f"http://{address}")
            return time.monotonic() - began

        other = Thread(target=wait, args=(2 * LATEST,))
        other.start()
        while not http._transport._pool.connections:
            time.sleep(0.01)
        assert wait(SECONDS) < LATEST
        other.join()


def test_a_step_that_takes_too_long_within_the_deadline_is_no_deadline():
    with (
        server(be_silent) as address,
        httpx.Client(transport=BoundedTransport({}), timeout=0.1) as http,
        pytest.raises(httpx.ReadTimeout),
        until(60),
    ):
        http.get(f"http://{address}")


def test_nothing_is_left_of_a_request_that_was_given_up():
    gone = Event()

    def hear_its_end(connection: socket.socket, over: Event) -> None:
        connection.recv(1 << 16)
        connection.settimeout(0.02)
        while not over.is_set():
            connection.sendall(b"y")
            with suppress(TimeoutError):
                if not connection.recv(1):
                    gone.set()
                    return

    before = set(threading.enumerate())
    with server(hear_its_end) as address, Client(f"http://{address}", model="tiny", timeout=SECONDS) as client:
        with pytest.raises(ServiceUnavailableError):
            client.prepare()
        assert gone.wait(5)
    assert set(threading.enumerate()) <= before


def test_a_prediction_begins_no_thread(tmp_path, monkeypatch):
    with server_process(tmp_path, [tiny_bundle()]) as service, Client(service.url, model="tiny") as client:
        client.prepare()
        begun, start = [], Thread.start

        def noted(thread: Thread) -> None:
            begun.append(thread)
            start(thread)

        monkeypatch.setattr(Thread, "start", noted)
        for _ in range(3):
            assert client.encrypt_and_predict(IMAGE).label == LABELS[int(cleartext_scores(IMAGE).argmax())]
    assert begun == []

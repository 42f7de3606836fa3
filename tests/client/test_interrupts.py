"""Who is interrupted, or called from where an event loop runs: over real connections."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Timer

import numpy as np
import pytest
from authority import answering, body
from server_process import ServerProcess, server_process, wait_until
from tiny_model import DEEP, LABELS, cleartext_scores, tiny_bundle

from heinfer.errors import ImageError
from heinfer_client import AsyncClient, Client

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
LABEL = LABELS[int(cleartext_scores(IMAGE).argmax())]
TINY = tiny_bundle()
LONG = tiny_bundle("long", parameters=DEEP, idle_rotations=2000)  # many seconds


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[ServerProcess]:
    with server_process(tmp_path_factory.mktemp("service"), [TINY, LONG]) as service:
        yield service


@contextmanager
def interrupted_after(seconds: float) -> Iterator[Callable[[], None]]:
    """By SIGINT, counted from when what this yields is called; not at all when all is over before."""
    timer = Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            yield timer.start
    finally:
        timer.cancel()


def test_who_is_interrupted_while_it_waits_goes_at_once_and_the_client_goes_on():
    is_first, over = Event(), Event()

    def respond(handler):
        if not is_first.is_set():
            is_first.set()
            over.wait(20)
        else:
            body(TINY.manifest.to_bytes())(handler)

    with answering(respond) as url, Client(url, model="tiny", progress=False) as client:
        began = time.monotonic()
        with interrupted_after(0.3) as begin:
            begin()
            client.prepare()
        assert time.monotonic() - began < 2
        with pytest.raises(ImageError):
            client.encrypt_and_predict(np.zeros(1))
        assert client.manifest == TINY.manifest
        over.set()


def cancelled(service: ServerProcess) -> int:
    return sum('"job over"' in line and '"cancelled"' in line for line in service.log.splitlines())


@pytest.mark.slow
def test_a_job_over_the_network_is_cancelled_and_the_client_goes_on(service):
    before = cancelled(service)
    with Client(service.url, model="long", progress=False) as client:
        client.prepare()
        for _ in range(2):
            began = time.monotonic()
            with interrupted_after(1.5) as begin:
                begin()
                client.encrypt_and_predict(IMAGE)
            assert time.monotonic() - began < 5
    wait_until(lambda: cancelled(service) == before + 2, 20)


@pytest.mark.slow
def test_so_does_the_twin(service):
    before = cancelled(service)

    async def use(begin: Callable[[], None]) -> None:
        async with AsyncClient(service.url, model="long", progress=False) as client:
            await client.prepare()
            begin()
            await client.encrypt_and_predict(IMAGE)

    with interrupted_after(1.5) as begin:
        asyncio.run(use(begin))
    wait_until(lambda: cancelled(service) == before + 1, 20)


def test_who_calls_the_ordinary_client_where_a_loop_runs_blocks_it_and_is_answered(service):
    """As a notebook does."""

    async def use() -> str:
        with Client(service.url, model="tiny", progress=False) as client:
            return client.encrypt_and_predict(IMAGE).label

    assert asyncio.run(use()) == LABEL


def test_a_client_that_is_closed_when_the_interpreter_ends_says_farewell(service):
    script = (
        "import atexit, sys\nfrom heinfer_client import Client\n"
        "client = Client(sys.argv[1], model='tiny', progress=False)\nclient.prepare()\natexit.register(client.close)\n"
    )
    before = service.log.count("DELETE")
    done = subprocess.run([sys.executable, "-c", script, service.url], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    wait_until(lambda: service.log.count("DELETE") > before, 5)


def test_a_twin_that_is_closed_in_another_event_loop_is_let_go(service):
    client = AsyncClient(service.url, model="tiny", progress=False)
    asyncio.run(client.prepare())
    asyncio.run(client.aclose())
    with warnings.catch_warnings():  # as of all that is open when a loop ends
        warnings.simplefilter("ignore", ResourceWarning)
        del client
        gc.collect()

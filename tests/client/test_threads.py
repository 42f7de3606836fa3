"""One client in several threads, and closed by one of them; bars of several at once."""

import asyncio
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import httpx
import numpy as np
import pytest
from in_process import URL, Recorded, running_service
from rich.console import Console
from rich.progress import Progress
from tiny_model import cleartext_scores, tiny_bundle

from heinfer.ckks.parameters import Parameters
from heinfer.ckks.secret import SecretSide
from heinfer.errors import SettingError
from heinfer_client import AsyncClient, Client, progress, retries, session
from heinfer_client.progress import Bars

MODEL = tiny_bundle()
IMAGES = [np.random.default_rng(seed).random((4, 4)) for seed in range(16)]
THREADS = 8


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL]) as service:
        yield service


def assert_right(client: Client, image: np.ndarray) -> None:
    assert client.encrypt_and_predict(image).scores == pytest.approx(cleartext_scores(image), abs=0.05)


def test_threads_that_begin_together_make_one_secret_and_are_all_right(running, monkeypatch, tmp_path):
    made, generate, together = [], SecretSide.generate, Barrier(THREADS)

    def slowly(parameters: Parameters) -> SecretSide:
        made.append(generate(parameters))
        time.sleep(0.1)
        return made[-1]

    monkeypatch.setattr(session.SecretSide, "generate", slowly)
    transport = Recorded(running.transport)
    with (
        Client(URL, model="tiny", keys_path=tmp_path / "key", transport=transport) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):

        def begin(image: np.ndarray) -> None:
            together.wait(30)
            assert_right(client, image)

        list(pool.map(begin, IMAGES[:THREADS]))
        list(pool.map(lambda image: assert_right(client, image), IMAGES))
    assert len(made) == 1
    assert (transport.count("/manifest"), transport.count("/keys")) == (1, 1)


class Together(Recorded):
    """Answers to /infer only when so many are under way at once."""

    def __init__(self, inner: httpx.BaseTransport, count: int) -> None:
        super().__init__(inner)
        self._barrier = Barrier(count)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/infer":
            self._barrier.wait(30)
        return super().handle_request(request)


def test_they_predict_side_by_side(running):
    with (
        Client(URL, model="tiny", transport=Together(running.transport, 4)) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        list(pool.map(lambda image: assert_right(client, image), IMAGES[:4]))


def test_threads_whose_keys_are_dropped_register_them_once(running):
    transport = Together(running.transport, 4)
    with Client(URL, model="tiny", transport=transport) as client, ThreadPoolExecutor(4) as pool:
        client.prepare()
        running.http.delete(f"/keys/{client._session._ready.key_id}")
        list(pool.map(lambda image: assert_right(client, image), IMAGES[:4]))
    assert (transport.count("/keys"), transport.count("/infer")) == (2, 8)


def test_a_thread_that_fails_to_prepare_leaves_it_to_the_next(running, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)

    class FailsOnce(Recorded):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            return httpx.Response(500) if self.count("/keys") == 1 and request.url.path.endswith("/keys") else answer

    with (
        Client(URL, model="tiny", transport=FailsOnce(running.transport)) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        outcomes = [pool.submit(assert_right, client, image).exception() for image in IMAGES[:THREADS]]
    assert [type(outcome).__name__ for outcome in outcomes].count("ServiceError") == 1
    assert outcomes.count(None) == THREADS - 1


def test_who_closes_a_client_ends_what_others_do_with_a_typed_error(running):
    class Tells(Recorded):
        is_under_way = Event()
        is_closed = False

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/infer":
                self.is_under_way.set()
                time.sleep(0.2)
            return super().handle_request(request)

        def close(self) -> None:
            self.is_closed = True

    transport = Tells(running.transport)
    client = Client(URL, model="tiny", transport=transport)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.encrypt_and_predict_many, IMAGES) for _ in range(4)]
        assert Tells.is_under_way.wait(60)
        client.close()
        assert not transport.is_closed
        for call in calls:
            with pytest.raises(SettingError, match="this client is closed"):
                call.result(60)
    assert transport.is_closed
    client.close()


def test_so_does_who_closes_the_asynchronous_one(running):
    class Tells(httpx.ASGITransport):
        is_under_way = is_closed = False

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.is_under_way |= request.url.path == "/infer"
            return await super().handle_async_request(request)

        async def aclose(self) -> None:
            self.is_closed = True

    async def use() -> None:
        transport = Tells(running.app)
        client = AsyncClient(URL, model="tiny", transport=transport)
        calls = [asyncio.create_task(client.encrypt_and_predict_many(IMAGES)) for _ in range(4)]
        while not transport.is_under_way:
            await asyncio.sleep(0.001)
        await client.aclose()
        assert not transport.is_closed
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, SettingError)
        assert transport.is_closed

    running.portal.call(use)


# Bars ------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    """What a terminal is sent."""
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=screen, force_terminal=True, width=80))
    return screen


def side_by_side(*works: Callable[[], None]) -> None:
    with ThreadPoolExecutor(len(works)) as pool:
        for outcome in [pool.submit(work) for work in works]:
            outcome.result(60)


def test_bars_of_several_threads_share_a_terminal(terminal):
    together = Barrier(4)

    def show(number: int) -> None:
        for _ in range(5):
            with Bars(True).bar(f"bar {number}", 10) as advance:
                together.wait(30)
                for _ in range(10):
                    advance(1)
                together.wait(30)

    side_by_side(*(lambda number=number: show(number) for number in range(4)))
    assert all(f"bar {number}" in terminal.getvalue() for number in range(4))
    assert progress._DISPLAY._progress is None


def test_clients_show_their_bars_at_once(running, terminal):
    def use() -> None:
        with Client(URL, model="tiny", transport=running.transport) as client:
            assert_right(client, IMAGES[0])

    side_by_side(use, use, use)
    assert "Making evaluation keys" in terminal.getvalue()


def test_a_bar_in_a_bar_and_beside_the_users_own_fails_nobody(terminal):
    own = Console(file=io.StringIO(), force_terminal=True)
    with Progress(console=own) as bars, Bars(True).bar("outer", 2), Bars(True).bar("inner", 2) as advance:
        bars.add_task("own")
        advance(1)
    assert progress._DISPLAY._progress is None

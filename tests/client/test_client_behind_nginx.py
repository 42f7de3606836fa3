"""A client before a real proxy, and services behind it that are started anew, or that are two."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from balancer import free_port, nginx
from server_process import ServerProcess, server_process
from tiny_model import DEEP, cleartext_scores, tiny_bundle

from heinfer.errors import ServiceUnavailableError, UnknownKeysError
from heinfer_client import Client, retries, upload

pytestmark = pytest.mark.slow

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
TINY = tiny_bundle()
LONG = tiny_bundle("long", parameters=DEEP, idle_rotations=700)  # seconds
TOLERANCE = 0.3


class Restarting:
    """A service at one port that can be ended and started again, with its keys where they were."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._running = ExitStack()
        self.start()

    def start(self) -> ServerProcess:
        settings = {"port": self.port, "key_folder": self._folder / "keys", "drain_seconds": 1}
        return self._running.enter_context(server_process(self._folder, [TINY, LONG], **settings))

    def kill(self) -> None:
        self._running.close()


@pytest.fixture
def service(tmp_path) -> Iterator[Restarting]:
    (tmp_path / "service").mkdir()
    service = Restarting(tmp_path / "service")
    yield service
    service.kill()


def assert_right(client: Client) -> None:
    assert client.encrypt_and_predict(IMAGE).scores == pytest.approx(cleartext_scores(IMAGE), abs=TOLERANCE)


def test_predictions_outlast_a_service_that_is_started_anew(tmp_path, service):
    with (
        nginx(tmp_path, [service.port]) as url,
        Client(url, model="tiny", progress=False) as client,
        ThreadPoolExecutor() as pool,
    ):
        assert_right(client)
        service.kill()
        prediction = pool.submit(assert_right, client)
        time.sleep(1.0)
        assert not prediction.done()
        service.start()
        prediction.result(60)


def test_keys_in_pieces_outlast_it(tmp_path, service, monkeypatch):
    monkeypatch.setattr(upload, "WHOLE_BYTES", 10_000)
    monkeypatch.setattr(upload, "PIECE_BYTES", 10_000)
    has_begun = Event()
    count = retries.Tries.attempt

    def noted(tries, request):
        if request.method == "PATCH" and int(request.query["offset"]) >= 100_000:
            has_begun.set()
            time.sleep(0.05)
        return count(tries, request)

    monkeypatch.setattr(retries.Tries, "attempt", noted)
    with (
        nginx(tmp_path, [service.port]) as url,
        Client(url, model="tiny", progress=False) as client,
        ThreadPoolExecutor() as pool,
    ):
        prediction = pool.submit(assert_right, client)
        assert has_begun.wait(60)
        service.kill()
        service.start()
        prediction.result(60)


def test_a_job_outlasts_it(tmp_path, service):
    with (
        nginx(tmp_path, [service.port]) as url,
        Client(url, model="long", progress=False) as client,
        ThreadPoolExecutor() as pool,
    ):
        client.prepare()
        client._session._expected = 1000.0  # whatever this machine makes of it
        prediction = pool.submit(assert_right, client)
        time.sleep(1.5)
        service.kill()
        service.start()
        prediction.result(120)


def test_a_service_that_stays_away_is_given_up(tmp_path, service, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.01)
    with nginx(tmp_path, [service.port]) as url, Client(url, model="tiny", progress=False) as client:
        client.prepare()
        service.kill()
        with pytest.raises(ServiceUnavailableError, match=r"HTTP status 502.*given up after 10 tries"):
            client.encrypt_and_predict(IMAGE)


@pytest.fixture
def two(tmp_path) -> Iterator[list[int]]:
    with ExitStack() as running:
        folders = [tmp_path / "one", tmp_path / "two"]
        servers = [running.enter_context(server_process(folder, [TINY])) for folder in folders]
        yield [int(server.url.rpartition(":")[2]) for server in servers]


def test_keys_that_come_to_another_service_than_requests_are_told_within_seconds(tmp_path, two):
    began = time.monotonic()
    with (
        nginx(tmp_path, two[:1], apart=("/keys$", two[1])) as url,
        Client(url, model="tiny", progress=False) as client,
        pytest.raises(UnknownKeysError, match="several services that do not share keys"),
    ):
        client.encrypt_and_predict(IMAGE)
    assert time.monotonic() - began < 15


def assert_right_or_told(folder: Path, ports: list[int], seconds: float) -> None:
    """One request more than usual, a retry for instance, and a request meets the service that has the keys."""
    began = time.monotonic()
    with (
        nginx(folder, ports) as url,
        Client(url, model="tiny", progress=False) as client,
        suppress(UnknownKeysError),
    ):
        assert_right(client)
    assert time.monotonic() - began < seconds


def test_two_services_that_take_turns_answer_right_or_are_told_within_seconds(tmp_path, two):
    assert_right_or_told(tmp_path, two, 15)


def test_keys_in_pieces_that_get_lost_between_them_end_soon(tmp_path, two, monkeypatch):
    """They may have come to both in the end, and then it is right: their id is that of their bytes."""
    monkeypatch.setattr(upload, "WHOLE_BYTES", 10_000)
    monkeypatch.setattr(upload, "PIECE_BYTES", 50_000)
    assert_right_or_told(tmp_path, two, 30)


@pytest.mark.parametrize("sticky", ["ip_hash;", "hash $http_authorization consistent;"])
def test_two_services_that_each_keep_their_clients_serve(tmp_path, two, monkeypatch, sticky):
    monkeypatch.setattr(upload, "WHOLE_BYTES", 10_000)
    monkeypatch.setattr(upload, "PIECE_BYTES", 50_000)
    with nginx(tmp_path, two, sticky) as url, Client(url, model="tiny", api_key="a-key", progress=False) as client:
        assert_right(client)
        assert_right(client)

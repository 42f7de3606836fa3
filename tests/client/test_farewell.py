"""What a client leaves behind at the service when it closes: nothing that only it could use."""

import asyncio
import errno
import gc
import os
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import NoReturn

import httpx
import numpy as np
import pytest
from in_process import URL, Recorded, RunningService, running_service
from tiny_model import cleartext_scores, tiny_bundle

from heinfer.ckks.secret import SecretSide
from heinfer.errors import HeinferError, SettingError
from heinfer_client import AsyncClient, Client, upload
from heinfer_client.registrations import FAREWELL_SECONDS, Registrations

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
OLD = tiny_bundle()
NEW = tiny_bundle(version="2", idle_rotations=1)  # which wants other keys


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[RunningService]:
    with running_service(tmp_path_factory.mktemp("bundles"), [NEW, OLD]) as service:
        yield service


@pytest.fixture
def transport(running: RunningService) -> Recorded:
    return Recorded(running.transport)


def client_of(transport: httpx.BaseTransport, keys_path: Path | None = None, **others: object) -> Client:
    return Client(URL, model="tiny", transport=transport, progress=False, keys_path=keys_path, **others)


def assert_right(client: Client) -> None:
    assert client.encrypt_and_predict(IMAGE).scores == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


def kept(running: RunningService) -> int:
    return len(running.http.get("/keys").json()["keys"])


def deletions(transport: Recorded) -> list[str]:
    return [request.url.path for request in transport.requests if request.method == "DELETE"]


def test_a_client_that_closes_leaves_no_keys(running, transport):
    before = kept(running)
    with client_of(transport) as client:
        assert_right(client)
        assert kept(running) == before + 1
    assert kept(running) == before
    client.close()
    assert len(deletions(transport)) == 1


def test_so_does_the_twin(running):
    before = kept(running)

    async def use() -> None:
        async with AsyncClient(URL, model="tiny", transport=httpx.ASGITransport(running.app)) as client:
            await client.encrypt_and_predict(IMAGE)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(running.app)) as http:
                assert (await http.get(f"{URL}/keys")).json()["keys"][before:]
        await client.aclose()

    running.portal.call(use)
    assert kept(running) == before


def test_a_client_that_has_done_nothing_asks_nothing(transport):
    client_of(transport).close()
    assert transport.requests == []


def test_keys_of_a_file_stay(transport, tmp_path):
    for _ in range(2):
        with client_of(transport, tmp_path / "key") as client:
            assert_right(client)
    assert (transport.count("/models/tiny/keys"), deletions(transport)) == (1, [])


def test_keys_of_a_file_whose_registration_cannot_be_noted_go(running, transport, tmp_path, monkeypatch):
    """As of a secret that is mounted read-only: the next client could not find them."""
    SecretSide.generate(OLD.manifest.to_parameters()).save(tmp_path / "key")
    before = kept(running)

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with client_of(transport, tmp_path / "key") as client:
        with pytest.warns(RuntimeWarning, match="sent again next time"):
            assert_right(client)
        assert kept(running) == before + 1
    assert kept(running) == before


class Changes(Recorded):
    """The service of a model that gets another version, with other keys, after the first prediction."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        first = self.count(request.url.path) == 0
        answer = super().handle_request(request)
        if request.url.path.endswith("/manifest") and first:
            return httpx.Response(200, content=OLD.manifest.to_bytes())
        if request.url.path == "/infer" and self.count("/infer") == 2:
            return httpx.Response(409, json={"code": "unknown-manifest"})
        return answer


def test_keys_of_former_versions_go_too_the_latest_first(running):
    before, transport = kept(running), Changes(running.transport)
    with client_of(transport) as client:
        assert_right(client)
        first = client._session._ready.key_id
        assert_right(client)
        second = client._session._ready.key_id
        assert kept(running) == before + 2
    assert deletions(transport) == [f"/keys/{second}", f"/keys/{first}"]
    assert kept(running) == before


# What a client does not wait for ---------------------------------------------------------------


def refuse() -> httpx.Response:
    return httpx.Response(401, json={"code": "unauthorized", "detail": "revoked"})


def be_away() -> httpx.Response:
    raise httpx.ConnectError("away")


def break_down() -> httpx.Response:
    raise RuntimeError("a transport of somebody's own")


def hang() -> httpx.Response:
    time.sleep(3 * FAREWELL_SECONDS)
    return httpx.Response(204)


def be_busy() -> httpx.Response:
    return httpx.Response(429, headers={"Retry-After": "60"}, json={"code": "busy"})


class AtTheEnd(Recorded):
    """Answers in its own way when keys are to be deleted."""

    def __init__(self, inner: httpx.BaseTransport, answer: Callable[[], httpx.Response]) -> None:
        super().__init__(inner)
        self._answer = answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        return self._answer() if request.method == "DELETE" else answer


@pytest.mark.parametrize("answer", [refuse, be_away, break_down, hang, be_busy])
def test_it_is_said_once_within_two_seconds_and_no_error_if_it_fails(running, answer, capfd, caplog):
    transport = AtTheEnd(running.transport, answer)
    client = client_of(transport)
    assert_right(client)
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < FAREWELL_SECONDS + 0.5
    assert len(deletions(transport)) == 1
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("heinfer_client")]


def test_two_seconds_are_for_all_of_them(running):
    transport = AtTheEnd(running.transport, hang)
    client = client_of(transport)
    for _ in range(3):
        client.prepare()
        running.http.delete(f"/keys/{client._session._ready.key_id}")
        assert_right(client)  # registers anew
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < FAREWELL_SECONDS + 0.5


def test_the_twin_waits_no_longer(running):
    class Hangs(httpx.ASGITransport):
        is_closed = False

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "DELETE":
                await asyncio.sleep(3 * FAREWELL_SECONDS)
            return await super().handle_async_request(request)

        async def aclose(self) -> None:
            self.is_closed = True

    async def use() -> float:
        transport = Hangs(running.app)
        client = AsyncClient(URL, model="tiny", transport=transport)
        await client.encrypt_and_predict(IMAGE)
        began = time.monotonic()
        await client.aclose()
        assert transport.is_closed
        return time.monotonic() - began

    assert running.portal.call(use) < FAREWELL_SECONDS + 0.5


# Whose keys, and when --------------------------------------------------------------------------


def test_who_closes_while_others_predict_leaves_it_to_the_last(running):
    class Tells(Recorded):
        is_under_way = Event()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/infer":
                self.is_under_way.set()
                time.sleep(0.2)
            return super().handle_request(request)

    before, transport = kept(running), Tells(running.transport)
    client = client_of(transport)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.encrypt_and_predict_many, [IMAGE] * 8) for _ in range(4)]
        assert Tells.is_under_way.wait(60)
        client.close()
        for call in calls:
            with pytest.raises(SettingError, match="this client is closed"):
                call.result(60)
    assert kept(running) == before
    assert [request.method for request in transport.requests].index("DELETE") == len(transport.requests) - 1


def test_keys_on_their_way_when_a_client_closes_are_forgotten_as_well(running):
    class Tells(Recorded):
        is_under_way = Event()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/keys"):
                self.is_under_way.set()
                time.sleep(0.2)
            return super().handle_request(request)

    before = kept(running)
    client = client_of(Tells(running.transport))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.encrypt_and_predict, IMAGE)
        assert Tells.is_under_way.wait(60)
        client.close()
        with pytest.raises(SettingError, match="this client is closed"):
            call.result(60)
    assert kept(running) == before


def test_keys_that_were_there_before_any_of_them_was_sent_are_not_its_own(running, monkeypatch):
    monkeypatch.setattr(upload, "WHOLE_BYTES", 1)
    with client_of(Recorded(running.transport)) as other:
        other.prepare()
        there = other._session._ready.key_id

        class Mistaken(Recorded):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                if request.url.path.endswith("/uploads"):
                    size = int(request.url.params["size"])
                    return httpx.Response(201, json={"upload": there, "offset": size, "is_registered": True})
                return super().handle_request(request)

        transport = Mistaken(running.transport)
        with client_of(transport) as client:
            client.prepare()
        assert deletions(transport) == []
        assert_right(other)


def test_keys_whose_registration_was_answered_to_nobody_are_its_own(running, monkeypatch):
    """The last answer of an upload is lost; that the keys are there is said when it begins anew."""
    monkeypatch.setattr(upload, "WHOLE_BYTES", 1)
    monkeypatch.setattr("heinfer_client.retries.FIRST_PAUSE", 0.001)

    class LosesOne(Recorded):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if request.method == "POST" and request.url.path.startswith("/uploads/"):
                raise httpx.ReadError("lost")
            return answer

    before = kept(running)
    with client_of(LosesOne(running.transport)) as client:
        client.prepare()
        assert kept(running) == before + 1
    assert kept(running) == before


def test_the_garbage_collector_sends_nothing(transport):
    def abandoned() -> Iterator[None]:
        with client_of(transport) as client:
            client.prepare()
            yield

    client = client_of(transport)
    client.prepare()
    iterator = abandoned()
    next(iterator)
    del client, iterator
    gc.collect()
    assert deletions(transport) == []


def test_a_client_that_nobody_has_any_more_goes_at_once_and_its_key_with_it(transport):
    client = client_of(transport)
    assert_right(client)
    secret = weakref.ref(client._session._keys.secret)
    gc.disable()
    try:
        del client
        assert secret() is None
    finally:
        gc.enable()


def test_a_client_of_many_registrations_remembers_the_latest():
    registrations = Registrations()
    for number in range(1000):
        registrations.own(f"{number:04}")
    words = registrations.farewell()
    assert len(words) <= 64
    assert words[0].path == "/keys/0999"
    assert registrations.farewell() == []


def test_closing_needs_no_service(tmp_path):
    """Nothing was registered: the service has never answered."""
    client = Client("http://127.0.0.1:9", model="tiny", timeout=0.5)
    with pytest.raises(HeinferError):
        client.prepare()
    client.close()

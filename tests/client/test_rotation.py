"""A secret key that is replaced by another, and key files that are protected, with a service."""

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from in_process import URL, Recorded, RunningService, running_service
from keyrings import keyring_in_memory
from tiny_model import WIDE, cleartext_scores, tiny_bundle

from heinfer.ckks import protection, secret_file
from heinfer.ckks.secret import SecretSide
from heinfer.errors import (
    KeyProtectionError,
    PassphraseRequiredError,
    ServiceError,
    SettingError,
    UnknownModelError,
    WrongPassphraseError,
)
from heinfer_client import AsyncClient, Client

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[RunningService]:
    models = [tiny_bundle(), tiny_bundle("wide", parameters=WIDE)]
    with running_service(tmp_path_factory.mktemp("bundles"), models) as service:
        yield service


@pytest.fixture
def transport(running: RunningService) -> Recorded:
    return Recorded(running.transport)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "key"


@pytest.fixture(autouse=True)
def in_haste(monkeypatch) -> None:
    monkeypatch.setattr(protection, "WORK", protection.WORKS.start)


def client_of(transport: httpx.BaseTransport, keys_path: Path | None = None, **others: Any) -> Client:
    return Client(URL, **{"model": "tiny", "progress": False, **others}, transport=transport, keys_path=keys_path)


def assert_right(client: Client) -> None:
    assert client.encrypt_and_predict(IMAGE).scores == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


def kept(running: RunningService) -> int:
    return len(running.http.get("/keys").json()["keys"])


def key_id_of(client: Client) -> str:
    return client._session._ready.key_id


def deletions(transport: Recorded) -> list[str]:
    return [request.url.path for request in transport.requests if request.method == "DELETE"]


def fingerprint(path: Path) -> str:
    return SecretSide.load(path).fingerprint()


# Rotation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_rotated_client_has_another_key_in_its_file_and_at_the_service(running, transport, path, is_kept):
    before = kept(running)
    with client_of(transport, path if is_kept else None) as client:
        assert_right(client)
        former, secret = key_id_of(client), client._session._keys.secret.fingerprint()
        client.rotate()
        assert deletions(transport) == [f"/keys/{former}"]
        assert client._session._keys.secret.fingerprint() != secret
        assert kept(running) == before + 1
        assert_right(client)
        assert key_id_of(client) != former
    assert kept(running) == before + is_kept
    if is_kept:
        assert fingerprint(path) != secret
        with client_of(Recorded(running.transport), path) as client:
            assert_right(client)
        assert kept(running) == before + 1  # what the file says of its registration is good


def test_so_does_the_twin(running, path):
    async def use() -> None:
        transport = httpx.ASGITransport(running.app)
        async with AsyncClient(URL, model="tiny", keys_path=path, transport=transport) as client:
            await client.rotate()  # makes the first
            first = fingerprint(path)
            await client.encrypt_and_predict(IMAGE)
            await client.rotate()
            assert fingerprint(path) != first
            prediction = await client.encrypt_and_predict(IMAGE)
            assert prediction.scores == pytest.approx(cleartext_scores(IMAGE), abs=0.05)

    before = kept(running)
    running.portal.call(use)
    assert kept(running) == before + 1


def test_a_client_that_has_just_opened_a_file_forgets_what_that_was_registered_as(running, transport, path):
    with client_of(running.transport, path) as client:
        client.prepare()
        former = key_id_of(client)
    with client_of(transport, path) as client:
        client.rotate()
    assert deletions(transport) == [f"/keys/{former}"]
    assert (transport.count("/models/tiny/keys"), transport.count("/infer")) == (1, 0)


def test_it_is_protected_as_before(running, transport, path):
    with client_of(transport, path, keys_passphrase="correct horse") as client:
        client.prepare()
        first = path.read_bytes()
        client.rotate()
        assert_right(client)
    assert path.read_bytes() != first
    with pytest.raises(PassphraseRequiredError):
        SecretSide.load(path)
    with client_of(running.transport, path, keys_passphrase="correct horse") as client:
        assert_right(client)


def test_a_file_that_does_not_open_is_not_replaced(transport, path):
    SecretSide.generate(tiny_bundle().manifest.to_parameters()).save(path, protection.Passphrase("correct horse"))
    before = path.read_bytes()
    for said, error in ((None, PassphraseRequiredError), ("wrong", WrongPassphraseError)):
        for model in ("tiny", "wide"):
            with client_of(transport, path, keys_passphrase=said, model=model) as client:
                for call in (client.prepare, client.rotate, lambda: client.encrypt_and_predict(IMAGE)):
                    with pytest.raises(error):
                        call()
    wide = client_of(transport, path, keys_passphrase="correct horse", model="wide")
    with wide, pytest.raises(SettingError, match="other CKKS parameters"):
        wide.rotate()
    assert path.read_bytes() == before
    assert transport.count("/keys") == 0


def test_a_service_that_refuses_leaves_all_as_it_was(running, path):
    class Refuses(Recorded):
        is_full = False

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if self.is_full and request.url.path.endswith("/keys"):
                return httpx.Response(507, json={"code": "storage-failed", "detail": "full"})
            return super().handle_request(request)

    transport = Refuses(running.transport)
    with client_of(transport, path) as client:
        assert_right(client)
        before, files = key_id_of(client), {file.name: file.read_bytes() for file in path.parent.iterdir()}
        transport.is_full = True
        with pytest.raises(ServiceError):
            client.rotate()
        assert_right(client)
        assert key_id_of(client) == before
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == files
    assert deletions(transport) == []
    with client_of(transport, path, model="nothing") as client, pytest.raises(UnknownModelError):
        client.rotate()


def test_a_file_that_cannot_be_replaced_leaves_all_as_it_was(running, transport, path, monkeypatch):
    before = kept(running)
    with client_of(transport, path) as client:
        assert_right(client)
        former, secret = key_id_of(client), fingerprint(path)

        def refuse(*_: object, **__: object) -> None:
            raise OSError(30, os.strerror(30))

        with monkeypatch.context() as patch:
            patch.setattr("tempfile.mkstemp", refuse)
            with pytest.raises(SettingError, match=r"keys cannot be kept at .*Read-only"):
                client.rotate()
        assert_right(client)
        assert (key_id_of(client), fingerprint(path)) == (former, secret)
    assert kept(running) == before + 1  # the new ones went when the client closed
    assert former not in deletions(transport)[0]


@pytest.mark.parametrize("step", ["before the file", "after the file"])
def test_a_crash_in_between_leaves_a_file_that_serves(running, path, step, monkeypatch):
    with client_of(running.transport, path) as client:
        assert_right(client)
        before, save = fingerprint(path), secret_file.write

        def crash(*arguments: Any) -> None:
            if step == "after the file":
                save(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(secret_file, "write", crash)
            with pytest.raises(KeyboardInterrupt):
                client.rotate()
    assert (fingerprint(path) == before) == (step == "before the file")
    transport = Recorded(running.transport)
    with client_of(transport, path) as client:
        assert_right(client)
    assert transport.count("/models/tiny/keys") == (step == "after the file")


def test_calls_under_way_end_with_the_former_keys(running, path):
    """Their evaluation keys are deleted when the last of these calls is over, and not before."""

    class Waits(Recorded):
        is_rotated = threading.Event()
        is_under_way = threading.Event()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/infer" and not self.is_rotated.is_set():
                self.is_under_way.set()
                assert self.is_rotated.wait(60)
            return super().handle_request(request)

    transport = Waits(running.transport)
    with client_of(transport, path) as client, ThreadPoolExecutor(3) as pool:
        client.prepare()
        former = key_id_of(client)
        calls = [pool.submit(client.encrypt_and_predict_many, [IMAGE] * 4) for _ in range(3)]
        assert transport.is_under_way.wait(60)
        client.rotate()
        assert deletions(transport) == []
        transport.is_rotated.set()
        for call in calls:
            for prediction in call.result(60):
                assert prediction.scores == pytest.approx(cleartext_scores(IMAGE), abs=0.05)
        assert deletions(transport) == [f"/keys/{former}"]
        assert_right(client)
    used = [request.url.params["keys"] for request in transport.requests if request.url.path == "/infer"]
    assert used == [former] * 12 + [key_id_of(client)]
    assert transport.count("/models/tiny/keys") == 2


def test_who_predicts_while_others_rotate_is_always_right(running):
    """Also where the service drops keys meanwhile."""
    is_over = threading.Event()
    with client_of(running.transport) as client, ThreadPoolExecutor(3) as pool:

        def go_on() -> int:
            count = 0
            while not is_over.is_set():
                for prediction in client.encrypt_and_predict_many([IMAGE] * 2):
                    assert prediction.scores == pytest.approx(cleartext_scores(IMAGE), abs=0.05)
                count += 1
            return count

        client.prepare()
        calls = [pool.submit(go_on) for _ in range(3)]
        for number in range(6):
            if number % 2:
                running.http.delete(f"/keys/{key_id_of(client)}")
            client.rotate()
            time.sleep(0.05)
        is_over.set()
        assert sum(call.result(60) for call in calls) > 0
        assert len(client._connections.registrations._retired) == 0


def test_a_service_that_does_not_forget_is_told_again_when_the_client_closes(running, path):
    class Breaks(Recorded):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if request.method == "DELETE" and len(deletions(self)) == 1:
                raise httpx.ReadError("away")
            return answer

    transport = Breaks(running.transport)
    with client_of(transport, path) as client:
        client.prepare()
        former = key_id_of(client)
        client.rotate()
        assert_right(client)
        assert deletions(transport) == [f"/keys/{former}"]
    assert deletions(transport) == [f"/keys/{former}"] * 2


# Deletion --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_kept", [True, False])
def test_who_deletes_keys_and_goes_on_has_new_ones(running, transport, path, is_kept):
    before = kept(running)
    with client_of(transport, path if is_kept else None) as client:
        client.delete_keys()  # there are none yet
        assert transport.requests == []
        assert_right(client)
        former, secret = key_id_of(client), client._session._keys.secret.fingerprint()
        client.delete_keys()
        assert deletions(transport) == [f"/keys/{former}"]
        assert kept(running) == before
        assert list(path.parent.iterdir()) == []
        assert_right(client)
        assert client._session._keys.secret.fingerprint() != secret
    assert kept(running) == before + is_kept


def test_a_call_whose_keys_another_deletes_goes_on_with_new_ones(running):
    class Deletes(Recorded):
        is_over = False

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/infer" and not self.is_over:
                self.is_over = True
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(client.delete_keys).result(60)
            return super().handle_request(request)

    pinned = tiny_bundle().manifest.to_bytes()
    with client_of(Deletes(running.transport), manifest=pinned) as client:
        assert_right(client)


def test_the_twin_deletes_too(running, path):
    async def use() -> None:
        transport = httpx.ASGITransport(running.app)
        async with AsyncClient(URL, model="tiny", keys_path=path, transport=transport) as client:
            await client.prepare()
            await client.delete_keys()

    before = kept(running)
    running.portal.call(use)
    assert kept(running) == before
    assert list(path.parent.iterdir()) == []


# Protected files -------------------------------------------------------------------------------


def test_a_client_with_a_passphrase_keeps_nothing_in_clear_and_comes_back(running, path):
    for _ in range(2):
        transport = Recorded(running.transport)
        with client_of(transport, path, keys_passphrase="correct horse") as client:
            assert_right(client)
    assert transport.paths == ["/models/tiny/manifest", "/infer"]
    clear = client._session._keys.secret
    clear.save(path.with_name("clear"))
    data = secret_file.read(path.with_name("clear")).key(None)
    for file in (path, path.with_name("key.registration")):
        assert data[64:96] not in file.read_bytes()
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_client_with_the_keyring_comes_back_too(running, path):
    with keyring_in_memory() as ring:
        for _ in range(2):
            with client_of(running.transport, path, keys_keyring=True) as client:
                assert_right(client)
        client = client_of(running.transport, path, keys_keyring=True)
        client.rotate()
        assert len(ring.entries) == 1


def test_a_file_in_clear_is_not_taken_for_a_protected_one(transport, path):
    SecretSide.generate(tiny_bundle().manifest.to_parameters()).save(path)
    with client_of(transport, path, keys_passphrase="x") as client, pytest.raises(KeyProtectionError) as caught:
        client.prepare()
    assert caught.value.code == "key-protection"


@pytest.mark.parametrize(
    "arguments",
    [{"keys_passphrase": "x"}, {"keys_keyring": True}, {"keys_passphrase": ""}],
)
def test_a_protection_without_a_file_is_refused(arguments):
    for kind in (Client, AsyncClient):
        with pytest.raises(SettingError, match="give keys_path"):
            kind(URL, model="tiny", **arguments)


def test_two_protections_at_once_are_refused(path):
    with pytest.raises(SettingError, match="not by both"):
        Client(URL, model="tiny", keys_path=path, keys_passphrase="x", keys_keyring=True)


def test_a_registration_beside_the_file_that_names_no_id_is_made_anew(running, path):
    with client_of(running.transport, path) as client:
        client.prepare()
    record = path.with_name("key.registration")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"keys": "../healthz"}))
    transport = Recorded(running.transport)
    with client_of(transport, path) as client:
        client.rotate()
    assert deletions(transport) == []

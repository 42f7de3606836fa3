"""Keys on disk, and keys in pieces, over real HTTP: ends without warning, restarts, and who registers again."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
from asking import of, to
from owner import Owner
from server_process import ServerProcess, launch, server_process, wait_until
from tiny_model import cleartext_scores, tiny_bundle

from benchmarks.support.ports import free_port
from heinfer_client import Client, upload
from heinfer_server.keys.uploads import UPLOADS_OF_A_TENANT

pytestmark = pytest.mark.slow

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
MODEL = tiny_bundle()
PIECE = 20_000


def client_of(url: str, keys_path: Path | None = None, api_key: str | None = None) -> Client:
    return Client(url, model="tiny", keys_path=keys_path, api_key=api_key, progress=False)


def register_more(url: str, api_key: str = "") -> None:
    """Keys of a client that never comes back."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    answer = httpx.post(f"{url}/models/tiny/keys", params=of(), headers=headers, content=Owner(MODEL).keys, timeout=20)
    assert answer.status_code == 201, answer.text


def heinfer(*words: object) -> str:
    command = [sys.executable, "-m", "heinfer", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.strip()


def assert_right(client: Client) -> None:
    assert client.encrypt_and_predict(IMAGE).scores == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


def kill(server: ServerProcess) -> None:
    """End it without warning, and its workers, which wait for a parent that is gone."""
    leftover = server.children()
    server.process.kill()
    server.process.wait()
    for pid in leftover:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def stored(folder: Path) -> set[str]:
    return {path.name for path in (folder / "keys" / "frames").iterdir()}


def test_keys_outlive_a_restart_and_a_kill(tmp_path):
    port, keys = free_port(), tmp_path / "client.key"
    settings = {"port": port, "key_folder": tmp_path / "keys"}
    with server_process(tmp_path / "server", [MODEL], **settings) as server, client_of(server.url, keys) as client:
        assert_right(client)
        registered = stored(tmp_path)
        server.stop()
    with server_process(tmp_path / "server", [MODEL], **settings) as server, client_of(server.url, keys) as client:
        assert_right(client)
        kill(server)
    with server_process(tmp_path / "server", [MODEL], **settings) as server, client_of(server.url, keys) as client:
        assert_right(client)
        assert stored(tmp_path) == registered  # nobody registered again


def test_registrations_under_kills_are_lost_by_nobody(tmp_path):
    """Clients register for ever, the service is killed in the middle: every id that was answered is good afterwards."""
    owner = Owner(MODEL)
    frames = [owner.codec.evaluation_keys(owner.secret, lambda _done: None) for _ in range(12)]
    port, answered = free_port(), set[str]()
    rng = np.random.default_rng(0)
    for number in range(4):
        with server_process(tmp_path / "server", [MODEL], port=port, key_folder=tmp_path / "keys") as server:

            def register(url: str = server.url) -> None:
                with httpx.Client(base_url=url, timeout=20) as http:
                    try:
                        for frame in frames:
                            answer = http.post("/models/tiny/keys", params=of(), content=frame)
                            if answer.status_code == 201:
                                answered.add(answer.json()["keys"])
                    except httpx.HTTPError:
                        return

            threads = [threading.Thread(target=register) for _ in range(2)]
            for thread in threads:
                thread.start()
            if number == 3:  # on a busy machine none may have been answered so far
                wait_until(lambda: bool(answered), 60)
            time.sleep(float(rng.uniform(0.02, 0.3)))
            kill(server)
            for thread in threads:
                thread.join()
    assert answered
    with server_process(tmp_path / "server", [MODEL], port=port, key_folder=tmp_path / "keys") as server:
        assert answered <= stored(tmp_path)
        assert all("." not in name for name in stored(tmp_path))
        body = owner.inputs(IMAGE)
        for key_id in answered:
            answer = httpx.post(f"{server.url}/infer", params=to(key_id), content=body, timeout=30)
            assert owner.scores(answer.content) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


def test_an_upload_goes_on_after_the_service_was_killed(tmp_path, monkeypatch):
    """What had come is gone with the process: the client notices, begins again, and its call succeeds."""
    monkeypatch.setattr(upload, "WHOLE_BYTES", PIECE)
    monkeypatch.setattr(upload, "PIECE_BYTES", PIECE)
    port = free_port()
    servers: list[ServerProcess] = []

    class KillsOnce(httpx.HTTPTransport):
        pieces = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            self.pieces += request.method == "PATCH"
            if self.pieces == 4 and len(servers) == 1:
                kill(servers[0])
                process = launch(tmp_path / "server", [MODEL], port=port)
                servers.append(ServerProcess(process, tmp_path / "server" / "log"))
            return super().handle_request(request)

    with server_process(tmp_path / "server", [MODEL], port=port) as server:
        servers.append(server)
        with Client(server.url, model="tiny", transport=KillsOnce(), progress=False) as client:
            try:
                assert_right(client)
            finally:
                for other in servers[1:]:
                    other.stop()
                    assert other.process.stdout is not None
                    other.process.stdout.close()
    assert len(servers) == 2


def test_who_was_pushed_out_registers_again_and_its_call_succeeds(tmp_path):
    room = int(1.5 * len(Owner(MODEL).keys))
    settings = {"key_folder": tmp_path / "keys", "key_disk": room}
    with (
        server_process(tmp_path / "server", [MODEL], **settings) as server,
        client_of(server.url) as first,
        client_of(server.url) as second,
    ):
        for client in (first, second, first, second):
            assert_right(client)
            assert len(stored(tmp_path)) == 1


def test_a_full_disk_is_said_so_and_harms_nothing_that_is_there(tmp_path):
    """The limit on a file's size stands for the full disk."""
    owner = Owner(MODEL)
    with (
        server_process(tmp_path / "server", [MODEL], key_folder=tmp_path / "keys") as server,
        client_of(server.url) as client,
    ):
        assert_right(client)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        answer = httpx.post(f"{server.url}/models/tiny/keys", params=of(), content=owner.keys, timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (507, "storage-failed")
        assert_right(client)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        answer = httpx.post(f"{server.url}/models/tiny/keys", params=of(), content=owner.keys, timeout=20)
        assert answer.status_code == 201
        assert len(stored(tmp_path)) == 2


def test_uploads_that_a_full_disk_refuses_do_not_make_their_tenant_busy(tmp_path):
    frames = [number.to_bytes(4, "little") for number in range(UPLOADS_OF_A_TENANT + 3)]
    keys = Owner(MODEL).keys
    with (
        server_process(tmp_path / "server", [MODEL], key_folder=tmp_path / "keys") as server,
        httpx.Client(base_url=server.url, timeout=20) as http,
    ):
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        for body in (keys[:-4] + frame for frame in frames):
            query = {**of(), "size": len(body), "sha256": sha256(body).hexdigest()}
            begun = http.post("/models/tiny/uploads", params=query)
            assert begun.status_code == 201, begun.text
            path = f"/uploads/{begun.json()['upload']}"
            assert http.patch(path, params={"offset": 0}, content=body).status_code == 200
            refused = http.post(path)
            assert (refused.status_code, refused.json()["code"]) == (507, "storage-failed")
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert http.post(path).status_code == 201  # the last is still there, and need not be sent again


def test_keys_of_another_key_set_are_not_taken_for_good(tmp_path):
    """The model is compiled anew under its name, with other keys."""
    port, keys = free_port(), tmp_path / "client.key"
    settings = {"port": port, "key_folder": tmp_path / "keys"}
    with server_process(tmp_path / "server", [MODEL], **settings) as server, client_of(server.url, keys) as client:
        assert_right(client)
        (old,) = stored(tmp_path)
    newer = tiny_bundle(idle_rotations=1)
    with server_process(tmp_path / "server", [newer], **settings) as server, client_of(server.url, keys) as client:
        assert_right(client)  # its key file says that the old ones are of another key set
        for version, code in ((MODEL, "unknown-manifest"), (newer, "key-set-mismatch")):
            answer = httpx.post(f"{server.url}/infer", params=to(old, version), content=b"", timeout=20)
            assert answer.json()["code"] == code


@pytest.mark.parametrize("days", [40, -40])
def test_a_clock_that_is_far_off_at_the_start_costs_nobody_its_keys(tmp_path, days):
    """What is stored is dated otherwise, which the service cannot tell from a clock that is."""
    port, keys = free_port(), tmp_path / "client.key"
    settings = {"port": port, "key_folder": tmp_path / "keys"}
    with server_process(tmp_path / "server", [MODEL], **settings) as server, client_of(server.url, keys) as client:
        assert_right(client)
        register_more(server.url)
        registered = stored(tmp_path)
        server.stop()
    with closing(sqlite3.connect(tmp_path / "keys" / "index.sqlite")) as index, index:
        index.execute("UPDATE keys SET created = created - ?, used = used - ?", (days * 86400.0,) * 2)
        index.execute("UPDATE seen SET time = time - ?", (days * 86400.0,))
    with server_process(tmp_path / "server", [MODEL], **settings) as server, client_of(server.url, keys) as client:
        assert_right(client)
        assert stored(tmp_path) == registered
        assert "key expiry suspended" in server.log
        heinfer("confirm-clock", "--key-folder", tmp_path / "keys")
        wait_until(lambda: "key expiry resumed" in server.log, 60)
        assert len(stored(tmp_path)) == (1 if days > 0 else 2)
        assert_right(client)
        assert stored(tmp_path) <= registered


def test_the_keys_of_a_removed_tenant_are_gone_from_the_disk_within_seconds(tmp_path):
    tenants = tmp_path / "tenants.json"
    api_keys = {name: heinfer("tenant", "add", name, "--tenants", tenants) for name in ("alice", "bob")}
    settings = {"key_folder": tmp_path / "keys", "tenants": tenants}
    with server_process(tmp_path / "server", [MODEL], **settings) as server:
        for api_key in api_keys.values():
            for _ in range(2):
                register_more(server.url, api_key)
        assert len(stored(tmp_path)) == 4
        heinfer("tenant", "remove", "alice", "--tenants", tenants)
        wait_until(lambda: len(stored(tmp_path)) == 2, 5)
        listed = heinfer("tenant", "keys", "--tenants", tenants, "--key-folder", tmp_path / "keys")
        assert [row.split()[0] for row in listed.splitlines()[1:]] == ["bob", "bob"]
        heinfer("tenant", "keys", "bob", "--purge", "--tenants", tenants)
        wait_until(lambda: not stored(tmp_path), 5)
        with client_of(server.url, api_key=api_keys["bob"]) as client:
            assert_right(client)


def test_a_backup_of_a_running_service_serves_its_clients_elsewhere(tmp_path):
    tenants, port = tmp_path / "tenants.json", free_port()
    keys, target, elsewhere = tmp_path / "client.key", tmp_path / "saved.tar", tmp_path / "elsewhere"
    api_key = heinfer("tenant", "add", "alice", "--tenants", tenants)
    leaves = heinfer("tenant", "add", "bob", "--tenants", tenants)
    owner = Owner(MODEL)
    settings = {"port": port, "key_folder": tmp_path / "keys", "tenants": tenants}
    with server_process(tmp_path / "server", [MODEL], **settings) as server:
        with client_of(server.url, keys, api_key) as client:
            assert_right(client)
        (mine,) = stored(tmp_path)
        register_more(server.url, leaves)
        stop = threading.Event()

        def register() -> None:
            headers = {"Authorization": f"Bearer {api_key}"}
            with httpx.Client(base_url=server.url, headers=headers, timeout=20) as http:
                while not stop.is_set():
                    body = owner.codec.evaluation_keys(owner.secret, lambda _done: None)
                    http.post("/models/tiny/keys", params=of(), content=body)

        thread = threading.Thread(target=register)
        thread.start()
        try:
            heinfer("backup", target, "--key-folder", tmp_path / "keys", "--tenants", tenants)
        finally:
            stop.set()
            thread.join()
        heinfer("tenant", "remove", "bob", "--tenants", tenants)
        server.stop()
    elsewhere.mkdir()
    subprocess.run(["tar", "-xpf", target, "-C", elsewhere], check=True)
    restored = stored(elsewhere)
    assert mine in restored
    assert len(restored) >= 2
    moved = {**settings, "key_folder": elsewhere / "keys", "tenants": elsewhere / "tenants.json"}
    with server_process(tmp_path / "server", [MODEL], **moved) as server:
        with client_of(server.url, keys, api_key) as client:
            assert_right(client)
        assert stored(elsewhere) == restored  # nobody registered again
        (elsewhere / "new").write_bytes(tenants.read_bytes())
        (elsewhere / "new").replace(elsewhere / "tenants.json")  # of today: whose keys the backup brought back
        wait_until(lambda: len(stored(elsewhere)) == len(restored) - 1, 5)
        assert mine in stored(elsewhere)

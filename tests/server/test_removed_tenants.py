"""What a service keeps of tenants who are removed or purged: nothing; of those who only seem to be gone: all of it."""

import json
import time
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from asking import infer, of, registered, to
from in_process import URL, RunningService, running_service
from owner import Owner
from server_process import wait_until
from test_server import assert_problem
from tiny_model import cleartext_scores, tiny_bundle
from typer.testing import CliRunner

from heinfer.errors import SettingError
from heinfer_cli.main import app
from heinfer_client import Client
from heinfer_server.admission.registry import TenantRegistry
from heinfer_server.admission.tenants import TenantFile
from heinfer_server.errors import StorageError
from heinfer_server.keys.disk_storage import DiskStorage
from heinfer_server.keys.store import KeyStore, StoreLimits

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
MODEL = tiny_bundle()
SECONDS = 10.0


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


@pytest.fixture
def file(tmp_path) -> TenantFile:
    return TenantFile(tmp_path / "tenants.json")


@pytest.fixture
def keys(file) -> dict[str, str]:
    return {name: file.add(name) for name in ("alice", "bob")}


@pytest.fixture
def running(tmp_path, file, keys):
    with running_service(tmp_path, [MODEL], tenants=file.path, key_folder=tmp_path / "keys") as service:
        yield service


def as_tenant(running: RunningService, api_key: str) -> httpx.Client:
    return httpx.Client(transport=running.transport, base_url=URL, headers={"Authorization": f"Bearer {api_key}"})


def frames(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "keys" / "frames").iterdir()}


def begin_upload(http: httpx.Client, owner: Owner) -> str:
    query = {**of(), "size": len(owner.keys), "sha256": "0" * 64}
    upload: str = http.post("/models/tiny/uploads", params=query).json()["upload"]
    return upload


@pytest.mark.parametrize("how", ["removed", "purged"])
def test_all_that_is_kept_of_a_tenant_goes_within_seconds_and_of_others_nothing(
    tmp_path, running, file, keys, owner, how, caplog
):
    caplog.set_level("INFO")
    alice, bob = (as_tenant(running, keys[name]) for name in ("alice", "bob"))
    his = registered(bob, owner.keys)
    ids = [registered(alice, owner.codec.evaluation_keys(owner.secret, lambda _done: None)) for _ in range(2)]
    mine = registered(alice, owner.keys)
    for http, key_id in ((alice, mine), (bob, his)):
        assert infer(http, key_id, owner.inputs(IMAGE)).status_code == 200
    uploads = [begin_upload(http, owner) for http in (alice, bob)]
    jobs = []
    for http, key_id in ((alice, mine), (bob, his)):
        answer = http.post("/jobs", params=to(key_id), content=owner.inputs(IMAGE), headers={"Idempotency-Key": "a"})
        jobs.append(answer.json()["job"])
        wait_until(lambda http=http: http.get(f"/jobs/{jobs[-1]}").json()["state"] == "done", 60)
    worker = running.worker
    assert mine in worker.loaded
    assert len(frames(tmp_path)) == 4
    if how == "removed":
        file.remove("alice")
    else:
        file.purge("alice")
    wait_until(lambda: frames(tmp_path) == {his}, SECONDS)  # nobody asks for anything meanwhile
    wait_until(lambda: mine not in worker.loaded, SECONDS)
    assert his in worker.loaded
    with closing(httpx.Client(transport=running.transport, base_url=URL)) as http:
        assert http.get("/readyz").status_code == 200
    service = running.service
    assert len(service.uploads) == 1
    assert [job.id for job in service.jobs] == [jobs[1]]
    assert not any(key_id in service.keys for key_id in (*ids, mine))
    assert bob.get(f"/uploads/{uploads[1]}").status_code == 200
    assert infer(bob, his, owner.inputs(IMAGE)).status_code == 200
    (line,) = [record.facts for record in caplog.records if record.message == "keys of removed tenants purged"]
    assert line == {"keys": 3}
    if how == "removed":
        assert_problem(alice.get("/keys"), 401, "unauthorized")
    else:
        assert alice.get("/keys").json() == {"keys": []}
        assert_problem(infer(alice, mine, owner.inputs(IMAGE)), 404, "unknown-keys")
        assert_problem(alice.get(f"/jobs/{jobs[0]}"), 404, "unknown-job")


def test_a_client_of_a_purged_tenant_goes_on_with_new_keys(tmp_path, running, file, keys):
    with Client(URL, model="tiny", api_key=keys["alice"], transport=running.transport, progress=False) as client:
        client.encrypt_and_predict(IMAGE)
        before = frames(tmp_path)
        done = CliRunner().invoke(app, ["tenant", "keys", "alice", "--purge", "--tenants", str(file.path)])
        assert done.exit_code == 0, done.output
        wait_until(lambda: not frames(tmp_path), SECONDS)
        assert client.encrypt_and_predict(IMAGE).scores == pytest.approx(cleartext_scores(IMAGE), abs=0.05)
        assert frames(tmp_path).isdisjoint(before)


def test_a_running_job_of_a_removed_tenant_ends(running, file, keys, owner):
    alice = as_tenant(running, keys["alice"])
    key_id = registered(alice, owner.keys)
    running.portal.call(running.lane.lock.acquire)
    try:
        job_id = alice.post("/jobs", params=to(key_id), content=owner.inputs(IMAGE)).json()["job"]
        (job,) = running.service.jobs
        assert job.id == job_id
        file.remove("alice")
        wait_until(lambda: job.is_over, SECONDS)
        assert job.watch.is_cancelled
    finally:
        running.portal.call(running.lane.lock.release)
    wait_until(lambda: running.service.evaluations.inside == 0, SECONDS)


def test_keys_that_come_while_their_tenant_is_removed_do_not_stay(tmp_path, running, file, keys, owner, monkeypatch):
    """The request was admitted before, and the purge has found nothing yet."""
    add = running.service.keys.add

    def removed_meanwhile(*arguments: object) -> str:
        file.remove("alice")
        running.portal.call(running.service.access.reload)
        running.portal.call(running.service.purge)
        return add(*arguments)

    monkeypatch.setattr(running.service.keys, "add", removed_meanwhile)
    answer = as_tenant(running, keys["alice"]).post("/models/tiny/keys", params=of(), content=owner.keys)
    assert_problem(answer, 429, "busy")
    assert frames(tmp_path) == set()
    assert len(running.service.keys) == 0


# The file that is not what it was ----------------------------------------------------------------


def others(file: TenantFile, tmp_path: Path) -> None:
    other = TenantFile(tmp_path / "other.json")
    other.add("alice")
    other.add("carol")
    other.remove("carol")
    (tmp_path / "other.json").replace(file.path)


MISHAPS = {
    "missing": lambda file, _tmp_path: file.path.unlink(),
    "empty": lambda file, _tmp_path: file.path.write_text(""),
    "without tenants": lambda file, _tmp_path: file.path.write_text("{}"),
    "of the former format, without them": lambda file, _tmp_path: file.path.write_text('{"format": 1, "tenants": []}'),
    "cut off": lambda file, _tmp_path: file.path.write_text(file.path.read_text()[:-40]),
    "of another service": others,
    "of the future": lambda file, _tmp_path: file.path.write_text('{"format": 3}'),
    "a folder": lambda file, _tmp_path: (file.path.unlink(), file.path.mkdir()),
}


READABLE = {MISHAPS[name] for name in ("without tenants", "of the former format, without them", "of another service")}
"""What a service takes for a file of tenants all the same."""


@pytest.mark.parametrize("mishap", MISHAPS.values(), ids=MISHAPS)
def test_a_file_that_is_not_what_it_was_purges_nobody(tmp_path, running, file, keys, owner, mishap, caplog):
    key_id = registered(as_tenant(running, keys["alice"]), owner.keys)
    good = file.path.read_text()
    mishap(file, tmp_path)
    for _ in range(3):
        time.sleep(1.1)
        running.portal.call(running.service.purge)
    assert frames(tmp_path) == {key_id}
    reads = mishap in READABLE
    lines = [record for record in caplog.records if record.message == "tenants not read"]
    assert len(lines) == (0 if reads else 1)  # once, not every second
    if file.path.is_dir():
        file.path.rmdir()
    file.path.write_text(good)
    time.sleep(1.1)
    assert infer(as_tenant(running, keys["alice"]), key_id, owner.inputs(IMAGE)).status_code == 200


def test_a_tenant_who_is_put_back_by_hand_is_not_purged(file, keys):
    content = json.loads(file.path.read_text())
    gone = TenantRegistry(file.path).find(keys["alice"])
    file.remove("alice")
    assert TenantRegistry(file.path).removed == {gone.id}
    after = json.loads(file.path.read_text())
    file.path.write_text(json.dumps({**after, "tenants": content["tenants"]}))
    directory = TenantRegistry(file.path)
    assert directory.removed == frozenset()
    assert directory.find(keys["alice"]) == gone


# Who is gone already -----------------------------------------------------------------------------


def store(folder: Path) -> KeyStore:
    return KeyStore(StoreLimits(1000, 1000), DiskStorage(folder))


def test_what_is_left_of_who_was_removed_while_no_service_ran_goes_at_the_start(tmp_path, file, keys):
    alice, bob = (TenantRegistry(file.path).find(keys[name]).id for name in ("alice", "bob"))
    with closing(store(tmp_path / "keys")) as former:
        former.add(alice, "0" * 64, b"a")
        his = former.add(bob, "0" * 64, b"b")
        former.add("f" * 16, "0" * 64, b"c")  # of one whom an older heinfer has removed
        former.add("default", "0" * 64, b"d")  # of the time without API keys
    file.remove("alice")
    with running_service(tmp_path, [MODEL], tenants=file.path, key_folder=tmp_path / "keys"):
        wait_until(lambda: len(frames(tmp_path)) == 3, SECONDS)
        for name in ("f" * 16, "default"):
            file.purge(name)
        wait_until(lambda: frames(tmp_path) == {his}, SECONDS)


def test_what_cannot_be_purged_is_named(file, keys):
    bob = TenantRegistry(file.path).find(keys["bob"]).id
    file.purge("f" * 16)
    for name, reason in (("carol", "no tenant carol"), (bob, "is the id of a tenant"), ("f" * 16, "purged already")):
        with pytest.raises(SettingError, match=reason):
            file.purge(name)
    done = CliRunner().invoke(app, ["tenant", "keys", "--purge", "--tenants", str(file.path)])
    assert (done.exit_code, TenantRegistry(file.path).find(keys["bob"]).id) == (2, bob)


def test_a_full_disk_does_not_keep_what_is_to_go(tmp_path, monkeypatch):
    with closing(store(tmp_path)) as there:
        there.add("a", "0" * 64, b"a")
        with monkeypatch.context() as patch:
            patch.setattr(DiskStorage, "_delete", full)
            with pytest.raises(StorageError, match="is full"):
                there.purge({"a"})
        assert not list((tmp_path / "frames").iterdir())
        assert there.purge({"a"}) == 1


def full(_storage: DiskStorage, _gone: object) -> None:
    raise OSError(28, "No space left on device")

"""API keys: made, revoked, found, and what requests without one get."""

import logging
import stat
from threading import Thread

import httpx
import numpy as np
import pytest
from asking import infer, of, register, registered, to
from in_process import URL, RunningService, running_service
from owner import Owner
from pydantic import ValidationError
from server_process import wait_until
from test_server import assert_problem
from tiny_model import LABELS, cleartext_scores, tiny_bundle
from typer.testing import CliRunner

from heinfer.errors import RateLimitedError, SettingError, UnauthorizedError
from heinfer_cli.main import app
from heinfer_client import Client
from heinfer_server import Settings
from heinfer_server.admission import access
from heinfer_server.admission.rates import Rate
from heinfer_server.admission.registry import TenantRegistry
from heinfer_server.admission.tenants import TenantFile

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
MODEL = tiny_bundle()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> TenantFile:
    return TenantFile(tmp_path_factory.mktemp("tenants") / "tenants.json")


@pytest.fixture(scope="module")
def api_keys(file: TenantFile) -> dict[str, str]:
    return {name: file.add(name) for name in ("alice", "bob", "hasty", "greedy")}


@pytest.fixture(scope="module")
def running(tmp_path_factory, file, api_keys):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL], tenants=file.path) as service:
        yield service


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


def as_tenant(running: RunningService, api_key: str) -> httpx.Client:
    return httpx.Client(transport=running.transport, base_url=URL, headers={"Authorization": f"Bearer {api_key}"})


@pytest.fixture
def alice(running, api_keys) -> httpx.Client:
    return as_tenant(running, api_keys["alice"])


@pytest.fixture
def bob(running, api_keys) -> httpx.Client:
    return as_tenant(running, api_keys["bob"])


# The file --------------------------------------------------------------------------------------


def test_an_api_key_is_shown_once_and_kept_nowhere(tmp_path):
    path = tmp_path / "tenants.json"
    file = TenantFile(path)
    first, second = file.add("alice"), file.add_key("alice")
    assert first != second
    text = path.read_text()
    assert not any(key in text or key.rpartition("-")[2] in text for key in (first, second))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    directory = TenantRegistry(path)
    assert directory.find(first) == directory.find(second)
    assert directory.find(first).name == "alice"
    assert directory.find(first[:-1]) is None
    assert directory.find("") is None


def test_a_revoked_key_is_nobodys_and_the_others_stay_good(tmp_path):
    file = TenantFile(tmp_path / "tenants.json")
    first, second = file.add("alice"), file.add_key("alice")
    directory = TenantRegistry(tmp_path / "tenants.json")
    file.revoke("alice", first.split("-")[1])
    directory.refresh()
    assert directory.find(first) is None
    assert directory.find(second).name == "alice"
    file.remove("alice")
    directory.refresh()
    assert directory.find(second) is None


def test_who_gets_a_name_again_is_somebody_else(tmp_path):
    file = TenantFile(tmp_path / "tenants.json")
    first = file.add("alice")
    before = TenantRegistry(tmp_path / "tenants.json").find(first)
    file.remove("alice")
    again = file.add("alice")
    assert TenantRegistry(tmp_path / "tenants.json").find(again).id != before.id


def test_commands_at_once_lose_nothing(tmp_path):
    path = tmp_path / "tenants.json"
    threads = [Thread(target=TenantFile(path).add, args=(f"t{number}",)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(TenantFile(path).tenants()) == 16


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "ä", "a\n"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(SettingError, match="name"):
        TenantFile(tmp_path / "tenants.json").add(name)


def test_what_is_not_there_is_named(tmp_path):
    file = TenantFile(tmp_path / "tenants.json")
    file.add("alice")
    with pytest.raises(SettingError, match="there is a tenant alice"):
        file.add("alice")
    for act in (lambda: file.add_key("bob"), lambda: file.remove("bob"), lambda: file.revoke("bob", "00000000")):
        with pytest.raises(SettingError, match="no tenant bob"):
            act()
    with pytest.raises(SettingError, match="no API key 00000000"):
        file.revoke("alice", "00000000")
    (tmp_path / "tenants.json").write_text("{}}")
    with pytest.raises(SettingError, match=r"is no file of tenants .* line 1 column 3"):
        file.tenants()
    (tmp_path / "tenants.json").write_text('{"tenants": [{"id": 5}]}')
    with pytest.raises(SettingError, match=r"is no file of tenants .* tenants\.0\.id: .* valid string"):
        file.tenants()
    with pytest.raises(SettingError, match=r"there is no file of tenants .* makes it"):
        TenantRegistry(tmp_path / "none")
    with pytest.raises(SettingError, match=r"cannot be read \(Is a directory\): it must be a file"):
        TenantRegistry(tmp_path)
    with pytest.raises(SettingError, match="cannot be written"):
        TenantFile(tmp_path / "no" / "folder").add("alice")


def test_the_command_line_does_the_same(tmp_path):
    path = str(tmp_path / "tenants.json")
    runner = CliRunner()

    def run(*words: str) -> str:
        done = runner.invoke(app, ["tenant", *words, "--tenants", path])
        assert done.exit_code == 0, done.output
        return done.output.strip()

    first = run("add", "alice")
    second = run("key", "alice")
    run("revoke", "alice", first.split("-")[1])
    assert second.split("-")[1] in run("list")
    assert first.split("-")[1] not in run("list")
    assert TenantRegistry(tmp_path / "tenants.json").find(second).name == "alice"
    run("remove", "alice")
    assert "alice" not in run("list")


@pytest.mark.parametrize(
    "wrong",
    [{}, {"no_auth": True, "tenants": "a"}, {"no_auth": True, "host": "0.0.0.0"}, {"no_auth": True, "host": "server"}],
)
def test_a_service_for_everybody_is_a_choice_and_for_this_machine_alone(wrong):
    with pytest.raises(ValidationError):
        Settings(bundles=("a",), **wrong)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert Settings(bundles=("a",), no_auth=True, host=host).no_auth


# Access ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic {alice}"},
        {"Authorization": "{alice}"},
        {"Authorization": "Bearer"},
        {"X-Api-Key": "{alice}"},
    ],
)
def test_without_a_good_key_nothing_is_told(running, api_keys, headers):
    given = {name: value.format(**api_keys) for name, value in headers.items()}
    for method, path in (
        ("GET", "/models"),
        ("GET", "/models/tiny/manifest"),
        ("POST", "/infer?model=tiny&keys=0"),
        ("POST", "/models/tiny/keys"),
        ("GET", "/keys"),
        ("GET", "/nothing"),
    ):
        answer = running.http.request(method, path, headers=given)
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert running.http.get("/healthz").status_code == 200


def test_two_keys_in_one_head_are_none(running, api_keys):
    headers = [("Authorization", f"Bearer {api_keys['alice']}"), ("Authorization", "Bearer x")]
    assert_problem(running.http.get("/models", headers=headers), 401, "unauthorized")


def test_a_client_with_its_key_is_served(running, api_keys, monkeypatch):
    with Client(URL, model="tiny", api_key=api_keys["alice"], transport=running.transport) as client:
        assert client.encrypt_and_predict(IMAGE).label == LABELS[int(cleartext_scores(IMAGE).argmax())]
    monkeypatch.setenv("HEINFER_API_KEY", api_keys["alice"])
    with Client(URL, model="tiny", transport=running.transport) as client:
        client.prepare()
    stranger = Client(URL, model="tiny", api_key="wrong", transport=running.transport)
    with stranger, pytest.raises(UnauthorizedError, match="does not take this API key"):
        stranger.prepare()
    with pytest.raises(SettingError, match="same header"):
        Client("http://user:word@service", model="tiny")
    with pytest.raises(SettingError, match="without spaces") as caught:
        Client(URL, model="tiny", api_key="a\nb")
    assert "a\nb" not in str(caught.value)


def test_nobody_can_use_delete_list_or_detect_the_keys_of_another(alice, bob, owner):
    mine = registered(alice, owner.keys)
    absent = "0" * 64
    for there, not_there in (
        (infer(bob, mine, owner.inputs(IMAGE)), infer(bob, absent, owner.inputs(IMAGE))),
        (bob.delete(f"/keys/{mine}"), bob.delete(f"/keys/{absent}")),
        (bob.get(f"/uploads/{mine}"), bob.get(f"/uploads/{absent}")),
        (bob.post(f"/uploads/{mine}"), bob.post(f"/uploads/{absent}")),
        (bob.delete(f"/uploads/{mine}"), bob.delete(f"/uploads/{absent}")),
    ):
        assert there.status_code == 404
        assert same_but_for_the_request(there, not_there)
    assert mine not in bob.get("/keys").text
    (listed,) = (entry for entry in alice.get("/keys").json()["keys"] if entry["keys"] == mine)
    assert (listed["models"], listed["bytes"]) == (["tiny"], len(owner.keys))
    assert infer(alice, mine, owner.inputs(IMAGE)).status_code == 200


def test_the_same_keys_of_two_tenants_are_two(alice, bob, owner):
    ids = [registered(http, owner.keys) for http in (alice, bob)]
    assert ids[0] != ids[1]
    assert alice.delete(f"/keys/{ids[0]}").status_code == 204
    assert infer(bob, ids[1], owner.inputs(IMAGE)).status_code == 200


def test_an_upload_belongs_to_who_began_it(alice, bob, owner):
    query = {**of(), "size": len(owner.keys), "sha256": "0" * 64}
    begun = alice.post("/models/tiny/uploads", params=query).json()["upload"]
    assert_problem(bob.get(f"/uploads/{begun}"), 404, "unknown-upload")
    assert_problem(bob.patch(f"/uploads/{begun}?offset=0", content=b"x"), 404, "unknown-upload")
    assert bob.post("/models/tiny/uploads", params=query).json()["upload"] != begun
    assert alice.get(f"/uploads/{begun}").json()["offset"] == 0


def test_a_job_belongs_to_who_began_it(alice, bob, owner):
    keys = registered(alice, owner.keys)
    query, body, headers = to(keys), owner.inputs(IMAGE), {"Idempotency-Key": "same"}
    mine, absent = alice.post("/jobs", params=query, content=body, headers=headers).json()["job"], "0" * 32
    for method, path in (("GET", ""), ("GET", "/result"), ("GET", "/events"), ("DELETE", "")):
        answers = [bob.request(method, f"/jobs/{job}{path}") for job in (mine, absent)]
        assert_problem(answers[0], 404, "unknown-job")
        assert same_but_for_the_request(*answers)
    own = registered(bob, owner.keys)
    his = bob.post("/jobs", params={**query, "keys": own}, content=body, headers=headers)
    assert his.status_code == 202  # an Idempotency-Key is the tenant's own
    assert his.json()["job"] != mine
    wait_until(lambda: alice.get(f"/jobs/{mine}").json()["state"] == "done", 60)


def same_but_for_the_request(one: httpx.Response, other: httpx.Response) -> bool:
    bodies = [{**answer.json(), "request_id": ""} for answer in (one, other)]
    heads = [{name: value for name, value in a.headers.items() if name != "x-request-id"} for a in (one, other)]
    return (one.status_code, bodies[0], heads[0]) == (other.status_code, bodies[1], heads[1])


def test_a_revoked_key_is_refused_by_a_running_service(running, file, monkeypatch):
    monkeypatch.setattr(access, "REFRESH_SECONDS", 0.0)
    http = as_tenant(running, file.add("carol"))
    assert http.get("/models").status_code == 200
    file.remove("carol")
    assert_problem(http.get("/models"), 401, "unauthorized")


def test_a_file_that_is_damaged_changes_nothing(running, file, alice, monkeypatch, caplog):
    monkeypatch.setattr(access, "REFRESH_SECONDS", 0.0)
    good = file.path.read_text()
    try:
        file.path.write_text("{")
        assert alice.get("/models").status_code == 200
        assert "tenants not read" in caplog.text
    finally:
        file.path.write_text(good)
    assert alice.get("/models").status_code == 200


def test_the_log_names_the_tenant_and_no_api_key(alice, api_keys, caplog):
    with caplog.at_level(logging.INFO):
        alice.get("/models")
    assert api_keys["alice"] not in caplog.text


# Rates -----------------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_fills_up_within_a_minute():
    clock = Clock()
    rate = Rate(6, "requests", clock)
    for _ in range(6):
        rate.require("a")
        rate.spend("a", 1)
    with pytest.raises(RateLimitedError, match="6 requests a minute") as caught:
        rate.require("a")
    assert caught.value.retry_after == 10
    rate.require("b")
    clock.now += caught.value.retry_after
    rate.require("a")
    clock.now += 3600
    for _ in range(6):
        rate.require("a")
        rate.spend("a", 1)
    with pytest.raises(RateLimitedError):
        rate.require("a")


def test_what_is_spent_beyond_it_is_waited_for():
    clock = Clock()
    rate = Rate(60, "bytes", clock)
    rate.spend("a", 180)
    with pytest.raises(RateLimitedError) as caught:
        rate.require("a")
    assert caught.value.retry_after == 121


def test_who_asks_too_often_is_told_when_to_come_back_and_others_are_not(running, api_keys, alice, monkeypatch):
    monkeypatch.setattr(running.service.access, "requests", Rate(3, "requests"))
    http = as_tenant(running, api_keys["hasty"])
    answers = [http.get("/models") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert_problem(answers[-1], 429, "rate-limited")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert alice.get("/models").status_code == 200


def test_bytes_in_both_directions_count(running, api_keys, alice, owner, monkeypatch):
    monkeypatch.setattr(running.service.access, "bytes", Rate(len(owner.keys), "bytes", Clock()))
    http = as_tenant(running, api_keys["greedy"])
    assert register(http, owner.keys).status_code == 201
    assert_problem(http.get("/models"), 429, "rate-limited")
    monkeypatch.setattr(running.service.access, "bytes", Rate(10, "bytes"))
    assert http.get("/models").status_code == 200
    assert_problem(http.get("/models"), 429, "rate-limited")

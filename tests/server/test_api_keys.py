"""API keys with an end and a list of models, and files of tenants of other formats."""

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import httpx
import numpy as np
import pytest
from asking import infer, of, registered, to
from in_process import URL, RunningService, running_service
from owner import Owner
from test_server import assert_problem
from tiny_model import tiny_bundle
from typer.testing import CliRunner

from heinfer.errors import ApiKeyExpiredError, SettingError, UnauthorizedError
from heinfer_cli.main import app
from heinfer_client import Client
from heinfer_server.admission.registry import TenantRegistry
from heinfer_server.admission.tenants import TenantFile, Terms

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
MODEL, OTHER = tiny_bundle(), tiny_bundle("other", idle_rotations=1)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> TenantFile:
    file = TenantFile(tmp_path_factory.mktemp("tenants") / "tenants.json")
    file.add("alice")
    return file


@pytest.fixture(scope="module")
def running(tmp_path_factory, file):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL, OTHER], tenants=file.path) as service:
        yield service


def http_of(running: RunningService, api_key: str) -> httpx.Client:
    running.service.access.reload()
    return httpx.Client(transport=running.transport, base_url=URL, headers={"Authorization": f"Bearer {api_key}"})


# An end ----------------------------------------------------------------------------------------


def test_a_key_that_has_expired_is_refused_with_the_reason_for_who_has_it(running, file, monkeypatch):
    end = datetime.now(UTC) + timedelta(days=90)
    api_key, other = file.add_key("alice", Terms(end.timestamp())), file.add_key("alice")
    http = http_of(running, api_key)
    assert http.get("/models").status_code == 200
    monkeypatch.setattr(running.service.access, "_wall", end.timestamp)
    answer = http.get("/models")
    assert_problem(answer, 401, "api-key-expired")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert f"{end:%Y-%m-%d}" in answer.json()["detail"]
    client = Client(URL, model="tiny", api_key=api_key, transport=running.transport)
    with client, pytest.raises(ApiKeyExpiredError, match=r"expired .*: ask the operator for another") as caught:
        client.prepare()
    assert isinstance(caught.value, UnauthorizedError)
    assert_problem(http_of(running, api_key + "0").get("/models"), 401, "unauthorized")  # one like it says nothing
    assert http_of(running, other).get("/models").status_code == 200
    monkeypatch.undo()
    assert http.get("/models").status_code == 200  # a clock that was wrong has cost nothing for good


@pytest.mark.parametrize(
    ("words", "seconds"), [("90d", 90 * 86400), ("12h", 12 * 3600), ("2999-01-31", None), ("2999-01-31T10:00", None)]
)
def test_the_command_line_takes_lengths_and_dates(tmp_path, words, seconds):
    path = tmp_path / "tenants.json"
    done = CliRunner().invoke(app, ["tenant", "add", "alice", "--tenants", str(path), "--expires", words])
    assert done.exit_code == 0, done.output
    expires = TenantRegistry(path).find(done.output.strip()).expires
    if seconds is None:
        assert datetime.fromtimestamp(expires, UTC).replace(tzinfo=None) == datetime.fromisoformat(words)
    else:
        assert abs(expires - datetime.now(UTC).timestamp() - seconds) < 60
    listed = CliRunner().invoke(app, ["tenant", "list", "--tenants", str(path)]).output
    assert f"{datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M}" in listed
    assert "all models" in listed


@pytest.mark.parametrize(
    "words", ["", "soon", "90", "0d", "-1d", "2001-01-01", "9999999d", "99999-01-01", "1e9d", "١d"]
)
def test_what_is_no_time_to_come_is_refused_and_makes_no_key(tmp_path, words):
    path = tmp_path / "tenants.json"
    done = CliRunner().invoke(app, ["tenant", "add", "alice", "--tenants", str(path), "--expires", words])
    assert done.exit_code == 2
    assert not path.exists()


def test_with_api_keys_any_name_will_do(running, file):
    """A proxy's, above all; and nobody has another's key in a browser."""
    answer = http_of(running, file.add_key("alice")).get("/models", headers={"Host": "heinfer.example"})
    assert answer.status_code == 200


# A list of models ------------------------------------------------------------------------------


@pytest.fixture
def bound(running, file) -> httpx.Client:
    return http_of(running, file.add_key("alice", Terms(models=("tiny",))))


def test_a_key_for_some_models_finds_the_others_as_if_they_did_not_exist(running, file, bound):
    free = http_of(running, file.add_key("alice"))
    assert {model["name"] for model in free.get("/models").json()["models"]} == {"tiny", "other"}
    assert {model["name"] for model in bound.get("/models").json()["models"]} == {"tiny"}
    manifest = of(OTHER)["manifest"]
    asked = [
        ("GET", "/models/{}/manifest", {}),
        ("POST", "/models/{}/keys", {"manifest": manifest}),
        ("POST", "/models/{}/uploads", {"manifest": manifest, "size": 1, "sha256": "0" * 64}),
        ("POST", "/infer", {"model": "{}", "keys": "0", "manifest": manifest}),
        ("POST", "/jobs", {"model": "{}", "keys": "0", "manifest": manifest}),
    ]
    for method, path, query in asked:
        answers = []
        for name in ("other", "absent"):
            params = {key: value if key != "model" else name for key, value in query.items()}
            answers.append(bound.request(method, path.format(name), params=params))
        assert_problem(answers[0], 404, "unknown-model")
        bodies = [{**answer.json(), "request_id": ""} for answer in answers]
        assert bodies[0] == bodies[1]


def test_a_key_for_some_models_is_good_for_them(running, file, bound):
    owner = Owner(MODEL)
    key_id = registered(bound, owner.keys)
    assert infer(bound, key_id, owner.inputs(IMAGE)).status_code == 200
    free, keys = http_of(running, file.add_key("alice")), Owner(OTHER).keys
    answer = free.post("/models/other/keys", params={"manifest": of(OTHER)["manifest"]}, content=keys)
    assert answer.status_code == 201, answer.text
    models = {tuple(entry["models"]) for entry in bound.get("/keys").json()["keys"]}
    assert models == {("tiny",)}  # keys of another model are not told of
    assert {tuple(entry["models"]) for entry in free.get("/keys").json()["keys"]} == {("tiny",), ("other",)}


def begun(http: httpx.Client, keys: bytes) -> str:
    """Id of an upload of keys for the other model."""
    params = {"manifest": of(OTHER)["manifest"], "size": len(keys), "sha256": sha256(keys).hexdigest()}
    return http.post("/models/other/uploads", params=params).json()["upload"]


def by_id(http: httpx.Client, kept: str, upload: str, whole: str, job: str) -> list[httpx.Response]:
    """Answers to all that is asked by an id."""
    tiny = {"model": "tiny", "keys": kept, "manifest": of(MODEL)["manifest"]}
    return [
        http.get(f"/uploads/{upload}"),
        http.patch(f"/uploads/{upload}", params={"offset": 0}, content=b"x"),
        http.post(f"/uploads/{upload}"),
        http.post(f"/uploads/{whole}"),
        http.delete(f"/uploads/{upload}"),
        http.delete(f"/keys/{kept}"),
        http.post("/infer", params=tiny, content=b""),
        http.post("/jobs", params=tiny, content=b""),
        http.get(f"/jobs/{job}"),
        http.get(f"/jobs/{job}/result"),
        http.get(f"/jobs/{job}/events"),
        http.delete(f"/jobs/{job}"),
    ]


def test_what_is_of_another_model_is_found_by_no_id(running, file, bound):
    free, owner = http_of(running, file.add_key("alice")), Owner(OTHER)
    upload = begun(free, owner.keys)
    whole = begun(free, Owner(OTHER).keys)
    kept = registered(free, Owner(OTHER).keys, OTHER)
    keys = Owner(OTHER)
    key_id = registered(free, keys.keys, OTHER)
    job = free.post("/jobs", params=to(key_id, OTHER), content=keys.inputs(IMAGE)).json()["job"]
    ids, absent = (kept, upload, whole, job), ("0" * 64,) * 3 + ("0" * 32,)
    found, expected = by_id(bound, *ids), by_id(bound, *absent)
    assert {answer.status_code for answer in expected} == {404}
    assert [{**answer.json(), "request_id": ""} for answer in found] == [
        {**answer.json(), "request_id": ""} for answer in expected
    ]
    assert bound.post(f"/uploads/{kept}").status_code == 404  # as one that is finished
    assert free.get(f"/uploads/{upload}").json()["offset"] == 0
    assert free.get(f"/jobs/{job}").status_code == 200
    assert free.delete(f"/keys/{kept}").status_code == 204


def test_names_that_no_model_has_are_refused(tmp_path):
    path = tmp_path / "tenants.json"
    for words in ("", "a,,b", "A", "a b"):
        done = CliRunner().invoke(app, ["tenant", "add", "alice", "--tenants", str(path), "--models", words])
        assert done.exit_code == 2
        assert not path.exists()
    done = CliRunner().invoke(app, ["tenant", "add", "alice", "--tenants", str(path), "--models", "a, b-1"])
    assert TenantRegistry(path).find(done.output.strip()).models == {"a", "b-1"}
    assert "a, b-1" in CliRunner().invoke(app, ["tenant", "list", "--tenants", str(path)]).output


# Formats ---------------------------------------------------------------------------------------


def test_a_file_of_the_former_format_is_read_and_goes_on(tmp_path):
    path = tmp_path / "tenants.json"
    api_key = TenantFile(path).add("alice")
    content = json.loads(path.read_text())
    (tenant,) = content["tenants"]
    former = [{name: key[name] for name in ("id", "sha256", "created")} for key in tenant["keys"]]
    path.write_text(json.dumps({"format": 1, "tenants": [{**tenant, "keys": former}]}))
    assert TenantRegistry(path).find(api_key).name == "alice"
    assert TenantRegistry(path).removed == frozenset()
    second = TenantFile(path).add_key("alice", Terms(4e9))
    assert TenantRegistry(path).find(api_key).models is None
    assert TenantRegistry(path).find(second).expires == 4e9
    assert json.loads(path.read_text())["format"] == 2


def test_a_file_of_the_future_is_refused_by_name_and_nobody_is_forgotten(tmp_path):
    path = tmp_path / "tenants.json"
    api_key = TenantFile(path).add("alice")
    directory = TenantRegistry(path)
    path.write_text(json.dumps({"format": 3, "tenants": [{"something": "new"}]}))
    for act in (directory.refresh, lambda: TenantFile(path).add("bob"), lambda: TenantRegistry(path)):
        with pytest.raises(SettingError, match=r"a newer heinfer wrote .* \(format 3, .* up to 2\): upgrade this one"):
            act()
    assert directory.find(api_key).name == "alice"

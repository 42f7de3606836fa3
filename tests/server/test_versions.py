"""A model that is replaced under its name: whoever asks is answered by the version that it asks for, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from asking import infer, of, register, registered, to
from in_process import URL, Recorded, RunningService, running_service
from installed import INSTALLED
from owner import Owner, binding_of
from server_process import wait_until
from test_server import assert_problem
from tiny_model import WEIGHTS, WIDE, cleartext_scores, tiny_bundle

from heinfer.errors import ModelChangedError, SettingError, WrongAnswerError
from heinfer.formats.bindings import evaluation_binding
from heinfer.formats.bundle import Bundle
from heinfer.formats.manifest import Preprocessing
from heinfer_client import Client
from heinfer_server.admission.tenants import TenantFile
from heinfer_server.models import Models, ServedModel, digest_of
from heinfer_server.web.dependencies import MANIFEST_HEADER

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
OTHER_IMAGE = 1 - IMAGE
DARK = Preprocessing(divisor=255.0, mean=(0.5,), std=(0.4,), low=-0.5, high=1.5)
REVERSED = WEIGHTS[::-1].copy()

OLD = tiny_bundle()
NEW = tiny_bundle(version="2", weights=REVERSED, labels=("w", "x", "y", "z"))
OTHER_KEYS = tiny_bundle(version="3", idle_rotations=1)
SIBLING = tiny_bundle("sibling", weights=REVERSED)


def expected(model: Bundle, image: np.ndarray = IMAGE) -> np.ndarray:
    batch = model.manifest.batch
    weights = model.circuit.constants[0][: 4 * batch : batch]
    return cleartext_scores(image, weights, model.manifest.input.preprocessing)


def assert_answered_by(prediction: Any, model: Bundle, image: np.ndarray = IMAGE) -> None:
    """Scores, label and what is said of the version are all of one model."""
    scores = expected(model, image)
    assert prediction.scores == pytest.approx(scores, abs=0.05)
    assert prediction.label == model.manifest.output.labels[int(scores.argmax())]
    assert prediction.model_version == model.manifest.model_version
    assert prediction.manifest == digest_of(model.manifest)


class Switch(httpx.BaseTransport):
    """The address of a service that is started again meanwhile."""

    def __init__(self, service: RunningService) -> None:
        self.inner = Recorded(service.transport)

    def to(self, service: RunningService) -> None:
        self.inner = Recorded(service.transport)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.inner.handle_request(request)


@contextmanager
def served(folder: Path, *models: Bundle, **settings: Any) -> Iterator[RunningService]:
    folder.mkdir(exist_ok=True)
    with running_service(folder, models, **settings) as service:
        yield service


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[RunningService]:
    with served(tmp_path_factory.mktemp("bundles"), NEW, OLD, OTHER_KEYS, SIBLING) as service:
        yield service


@pytest.fixture(scope="module")
def owners() -> dict[str, Owner]:
    return {name: Owner(model) for name, model in (("old", OLD), ("new", NEW), ("other", OTHER_KEYS))}


# Several at once -------------------------------------------------------------------------------


def test_the_list_has_every_version_and_says_which_is_current(http):
    listed = http.get("/models").json()["models"]
    assert [(entry["name"], entry["version"], entry["is_current"]) for entry in listed] == [
        ("tiny", "2", True),
        ("tiny", "1", False),
        ("tiny", "3", False),
        ("sibling", "1", True),
    ]
    assert [entry["digest"] for entry in listed] == [digest_of(m.manifest) for m in (NEW, OLD, OTHER_KEYS, SIBLING)]
    assert http.get("/models/tiny/manifest").content == NEW.manifest.to_bytes()


@pytest.mark.parametrize("model", [OLD, NEW, OTHER_KEYS], ids=lambda model: model.manifest.model_version)
def test_every_version_answers_who_asks_for_it(http, model):
    owner = Owner(model)
    body, key_id = owner.inputs(IMAGE), registered(http, owner.keys, model)
    answer = infer(http, key_id, body, model)
    assert answer.headers[MANIFEST_HEADER] == digest_of(model.manifest)
    assert owner.scores(answer.content) == pytest.approx(expected(model), abs=0.05)
    assert binding_of(answer.content) == evaluation_binding(owner.codec.binding, key_id, body)


def test_clients_of_two_versions_get_each_the_answers_of_their_own(running):
    with (
        Client(URL, model="tiny", transport=running.transport, manifest=OLD.manifest.to_bytes()) as old,
        Client(URL, model="tiny", transport=running.transport) as new,
    ):
        for image in (IMAGE, OTHER_IMAGE):
            assert_answered_by(old.encrypt_and_predict(image), OLD, image)
            assert_answered_by(new.encrypt_and_predict(image), NEW, image)
    labels = OLD.manifest.output.labels, NEW.manifest.output.labels
    assert set(labels[0]).isdisjoint(labels[1])


def test_the_very_same_manifest_twice_is_refused():
    twice = [ServedModel.of(model) for model in (OLD, NEW, OLD)]
    with pytest.raises(SettingError, match="two bundles have the same manifest, of tiny 1"):
        Models(twice)


# What names a version --------------------------------------------------------------------------

DEPENDENT = ("/infer", "/jobs", "/models/tiny/keys", "/models/tiny/uploads")


def query_of(path: str, **others: str) -> dict[str, str]:
    """All that a request wants but a manifest."""
    if path.startswith("/models"):
        return {"size": "1", "sha256": "0" * 64, **others}
    return {"model": "tiny", "keys": "0" * 64, **others}


@pytest.mark.parametrize("path", DEPENDENT)
def test_a_request_that_names_no_version_is_refused_and_told_what_to_do(http, path):
    answer = http.post(path, params=query_of(path), content=b"x")
    assert_problem(answer, 400, "manifest-required")
    assert "fetch its manifest" in answer.json()["detail"]
    assert "upgrade the client" in answer.json()["detail"]


@pytest.mark.parametrize("path", DEPENDENT)
@pytest.mark.parametrize("digest", ["0" * 64, digest_of(SIBLING.manifest)], ids=["nobody's", "another model's"])
def test_a_version_that_is_not_there_is_refused(http, path, digest):
    assert_problem(http.post(path, params=query_of(path, manifest=digest), content=b"x"), 409, "unknown-manifest")


@pytest.mark.parametrize("path", DEPENDENT)
@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "G" * 64, digest_of(OLD.manifest).upper()])
def test_what_is_no_digest_is_malformed(http, path, digest):
    answer = http.post(path, params=query_of(path, manifest=digest), content=b"x")
    assert_problem(answer, 422, "bad-request")
    assert "manifest" in answer.json()["detail"]


def test_what_is_wrong_is_said_in_order_model_version_keys(http):
    digest = digest_of(OLD.manifest)
    for query, status, code in (
        ({"model": "none", "keys": "x"}, 404, "unknown-model"),
        ({"model": "none", "keys": "x", "manifest": "0" * 64}, 404, "unknown-model"),
        ({"model": "tiny", "keys": "x"}, 400, "manifest-required"),
        ({"model": "tiny", "keys": "x", "manifest": "0" * 64}, 409, "unknown-manifest"),
        ({"model": "tiny", "keys": "x", "manifest": digest}, 404, "unknown-keys"),
    ):
        assert_problem(http.post("/infer", params=query, content=b"x"), status, code)


def test_inputs_for_one_version_are_not_evaluated_by_another(http, owners):
    key_id = registered(http, owners["old"].keys)
    assert_problem(infer(http, key_id, owners["old"].inputs(IMAGE), NEW), 400, "frame-binding")
    assert_problem(infer(http, key_id, owners["new"].inputs(IMAGE), OLD), 400, "frame-binding")


# Restarts --------------------------------------------------------------------------------------

CHANGES = {
    "labels, in the same words": tiny_bundle(labels=("d", "c", "b", "a")),
    "weights": tiny_bundle(version="2", weights=REVERSED),
    "normalisation": tiny_bundle(preprocessing=DARK),
    "scale": tiny_bundle(input_scale=1.3e7),
    "keys": tiny_bundle(idle_rotations=1),
    "ring": tiny_bundle(parameters=WIDE),
    "batch": tiny_bundle(batch=2),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_client_meets_another_version_after_a_restart_and_is_answered_wholly_by_that(tmp_path, what):
    newer = CHANGES[what]
    with ExitStack() as stack:
        switch = Switch(stack.enter_context(served(tmp_path / "old", OLD)))
        client = stack.enter_context(Client(URL, model="tiny", transport=switch))
        assert_answered_by(client.encrypt_and_predict(IMAGE), OLD)
        switch.to(stack.enter_context(served(tmp_path / "new", newer)))
        assert_answered_by(client.encrypt_and_predict(IMAGE), newer)
        asked = len(switch.inner.paths)
        assert_answered_by(client.encrypt_and_predict(OTHER_IMAGE), newer, OTHER_IMAGE)
        assert switch.inner.paths[asked:] == ["/infer"]


def test_a_restart_between_the_images_of_one_call_mixes_no_versions(tmp_path):
    """The second image of the call meets another version: both are answered by that one."""
    with ExitStack() as stack:
        old, new = (stack.enter_context(served(tmp_path / m.manifest.model_version, m)) for m in (OLD, NEW))

        class Restarts(Switch):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                if self.inner.count("/infer") == 1:
                    self.to(new)
                return super().handle_request(request)

        client = stack.enter_context(Client(URL, model="tiny", transport=Restarts(old)))
        client.prepare()
        for prediction, image in zip(
            client.encrypt_and_predict_many([IMAGE, OTHER_IMAGE]), (IMAGE, OTHER_IMAGE), strict=True
        ):
            assert_answered_by(prediction, NEW, image)


def test_a_client_that_is_pinned_stays_with_its_version_or_fails(tmp_path):
    with ExitStack() as stack:
        both = stack.enter_context(served(tmp_path / "both", NEW, OLD))
        switch = Switch(both)
        pinned = Client(URL, model="tiny", transport=switch, manifest=OLD.manifest.to_bytes())
        client = stack.enter_context(pinned)
        assert_answered_by(client.encrypt_and_predict(IMAGE), OLD)
        switch.to(stack.enter_context(served(tmp_path / "new", NEW)))
        with pytest.raises(ModelChangedError, match="pinned"):
            client.encrypt_and_predict(IMAGE)


def test_a_new_version_comes_out_without_a_lost_request(tmp_path):
    """As docs/operation.md says: both first, the newer one current, then the newer one alone."""
    with ExitStack() as stack:
        first = stack.enter_context(served(tmp_path / "1", OLD))
        both = stack.enter_context(served(tmp_path / "2", NEW, OLD))
        last = stack.enter_context(served(tmp_path / "3", NEW))
        switch = Switch(first)
        client = stack.enter_context(Client(URL, model="tiny", transport=switch))
        assert_answered_by(client.encrypt_and_predict(IMAGE), OLD)
        switch.to(both)
        assert_answered_by(client.encrypt_and_predict(IMAGE), OLD)
        late = stack.enter_context(Client(URL, model="tiny", transport=both.transport))
        assert_answered_by(late.encrypt_and_predict(IMAGE), NEW)
        switch.to(last)
        assert_answered_by(client.encrypt_and_predict(IMAGE), NEW)


# Jobs ------------------------------------------------------------------------------------------


def test_a_job_is_evaluated_by_the_version_that_it_was_accepted_for(running, http, owners, monkeypatch):
    """Also when the current one has changed before its result is fetched."""
    owner = owners["old"]
    body, key_id = owner.inputs(IMAGE), registered(http, owner.keys)
    job = http.post("/jobs", params=to(key_id), content=body).json()["job"]
    newer = Models([ServedModel.of(NEW)])
    monkeypatch.setattr(running.service, "models", newer)
    assert_problem(http.post("/jobs", params=to(key_id), content=body), 409, "unknown-manifest")
    wait_until(lambda: http.get(f"/jobs/{job}").json()["state"] == "done", 60)
    answer = http.get(f"/jobs/{job}/result")
    assert answer.headers[MANIFEST_HEADER] == digest_of(OLD.manifest)
    assert owner.scores(answer.content) == pytest.approx(expected(OLD), abs=0.05)
    assert binding_of(answer.content) == evaluation_binding(owner.codec.binding, key_id, body)


def test_the_version_is_part_of_what_an_idempotency_key_stands_for(http, owners):
    key_id = registered(http, owners["old"].keys)
    headers = {"Idempotency-Key": "versions"}
    first = http.post("/jobs", params=to(key_id), content=owners["old"].inputs(IMAGE), headers=headers)
    assert first.status_code == 202
    other = http.post("/jobs", params=to(key_id, NEW), content=owners["new"].inputs(IMAGE), headers=headers)
    assert_problem(other, 409, "idempotency-conflict")


# Keys ------------------------------------------------------------------------------------------


def of_secret(model: Bundle, other: Owner) -> Owner:
    """Who has a secret key already, with another model."""
    owner = Owner(model)
    owner.secret = other.secret
    return owner


@pytest.mark.parametrize("backend", INSTALLED)
def test_keys_for_one_version_serve_all_that_take_the_same_and_are_loaded_once(tmp_path, owners, backend):
    owner = owners["old"]
    with served(tmp_path, NEW, OLD, SIBLING, backend=backend) as running:
        key_ids = {registered(running.http, owner.keys, model) for model in (OLD, NEW, SIBLING)}
        assert len(key_ids) == 1
        (key_id,) = key_ids
        for model in (OLD, NEW, SIBLING):
            user = of_secret(model, owner)
            answer = infer(running.http, key_id, user.inputs(IMAGE), model)
            assert user.scores(answer.content) == pytest.approx(expected(model), abs=0.05)
            assert ("keys;dur=0.0" in answer.headers["server-timing"]) == (model is not OLD)


def test_keys_of_one_set_do_not_serve_another(http, owners):
    key_id = registered(http, owners["old"].keys)
    assert_problem(infer(http, key_id, owners["other"].inputs(IMAGE), OTHER_KEYS), 400, "key-set-mismatch")
    assert_problem(register(http, owners["old"].keys, OTHER_KEYS), 400, "frame-binding")


def test_keys_are_listed_with_their_set_and_who_takes_it(http, owners):
    registered(http, owners["old"].keys)
    registered(http, owners["other"].keys, OTHER_KEYS)
    listed = {entry["key_set"]: entry["models"] for entry in http.get("/keys").json()["keys"]}
    assert listed[owners["old"].codec.key_set] == ["tiny", "sibling"]
    assert listed[owners["other"].codec.key_set] == ["tiny"]


def test_keys_of_a_set_are_not_shared_between_tenants(tmp_path, owners):
    file = TenantFile(tmp_path / "tenants.json")
    api_keys = [file.add(name) for name in ("alice", "bob")]
    with served(tmp_path, OLD, SIBLING, tenants=tmp_path / "tenants.json") as running:
        alice, bob = (
            httpx.Client(transport=running.transport, base_url=URL, headers={"Authorization": f"Bearer {key}"})
            for key in api_keys
        )
        key_id, owner = registered(alice, owners["old"].keys), of_secret(SIBLING, owners["old"])
        assert infer(alice, key_id, owner.inputs(IMAGE), SIBLING).status_code == 200
        assert_problem(infer(bob, key_id, owner.inputs(IMAGE), SIBLING), 404, "unknown-keys")
        assert registered(bob, owners["old"].keys, SIBLING) != key_id


def test_a_new_version_with_the_same_keys_costs_no_upload(tmp_path):
    """Where keys outlive the process."""
    folder = tmp_path / "keys"
    with served(tmp_path / "old", OLD, key_folder=folder) as running:
        switch = Switch(running)
        client = Client(URL, model="tiny", transport=switch)
        assert_answered_by(client.encrypt_and_predict(IMAGE), OLD)
        assert switch.inner.count("/keys") == 1
    with served(tmp_path / "new", NEW, key_folder=folder) as running, client:
        switch.to(running)
        assert_answered_by(client.encrypt_and_predict(IMAGE), NEW)
        assert switch.inner.paths == ["/infer", "/models/tiny/manifest", "/infer"]


def test_keys_in_pieces_are_finished_whichever_version_they_were_begun_for(http, owners):
    keys = owners["old"].codec.evaluation_keys(owners["old"].secret, lambda _done: None)
    query = {"size": str(len(keys)), "sha256": sha256(keys).hexdigest()}
    begun = http.post("/models/tiny/uploads", params=of(OLD, **query)).json()["upload"]
    assert http.patch(f"/uploads/{begun}", params={"offset": 0}, content=keys[:1000]).status_code == 200
    again = http.post("/models/sibling/uploads", params=of(SIBLING, **query)).json()
    assert (again["upload"], again["offset"]) == (begun, 1000)
    assert http.patch(f"/uploads/{begun}", params={"offset": 1000}, content=keys[1000:]).status_code == 200
    assert http.post(f"/uploads/{begun}").json()["keys"] == begun == registered(http, keys, NEW)


# Answers that change places --------------------------------------------------------------------


class Mixed:
    """Gives two requests that come together each the answer of the other."""

    def __init__(self, running: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
        self._evaluate = running.service.workers.evaluate
        self._first: asyncio.Future[object] | None = None
        monkeypatch.setattr(running.service.workers, "evaluate", self.evaluate)

    async def evaluate(self, *task: object) -> object:
        result = await self._evaluate(*task)
        if self._first is None:
            self._first = asyncio.get_running_loop().create_future()
            mine, self._own = self._first, result
            return await mine
        first, self._first = self._first, None
        first.set_result(result)
        return self._own


@pytest.mark.parametrize("models", [(OLD, OLD), (OLD, NEW)], ids=["of one version", "of two versions"])
def test_answers_that_change_places_in_the_service_are_refused(running, monkeypatch, models):
    clients = [
        Client(URL, model="tiny", transport=running.transport, manifest=model.manifest.to_bytes()) for model in models
    ]
    for client in clients:
        client.prepare()
    with monkeypatch.context() as patch, ThreadPoolExecutor() as threads:
        Mixed(running, patch)
        calls = [threads.submit(client.encrypt_and_predict, IMAGE) for client in clients]
        for call in calls:
            with pytest.raises(WrongAnswerError, match="nothing of it is used"):
                call.result(60)
    for client, model in zip(clients, models, strict=True):
        assert_answered_by(client.encrypt_and_predict(IMAGE), model)
        client.close()


def test_answers_that_one_client_gets_for_its_other_request_are_refused(running, monkeypatch):
    """Of one secret key, with one set of keys: nothing but the inputs tells the two apart."""
    with Client(URL, model="tiny", transport=running.transport) as client, ThreadPoolExecutor() as threads:
        client.prepare()
        Mixed(running, monkeypatch)
        calls = [threads.submit(client.encrypt_and_predict, image) for image in (IMAGE, OTHER_IMAGE)]
        for call in calls:
            with pytest.raises(WrongAnswerError):
                call.result(60)

import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from in_process import RunningService, running_service
from owner import Owner
from tiny_model import TINY, WIDE, cleartext_scores, tiny_bundle

from heinfer_server.heads import MAX_HEAD_BYTES

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
TINY_MODEL = tiny_bundle()
SLOW_MODEL = tiny_bundle("slow", idle_rotations=400)
WIDE_MODEL = tiny_bundle("wide", parameters=WIDE)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [TINY_MODEL, SLOW_MODEL, WIDE_MODEL]) as service:
        yield service


@pytest.fixture
def http(running: RunningService) -> httpx.Client:
    return running.http


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(TINY_MODEL)


@pytest.fixture
def key_id(http: httpx.Client, owner: Owner) -> str:
    answer = http.post("/models/tiny/keys", content=owner.keys)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/keys/{answer.json()['keys']}"
    return answer.json()["keys"]


def infer(http: httpx.Client, key_id: str, body: bytes, model: str = "tiny") -> httpx.Response:
    return http.post("/infer", params={"model": model, "keys": key_id}, content=body)


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"] == f"urn:heinfer:problem:{code}"
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]


# What it is for --------------------------------------------------------------------------------


def test_it_evaluates_what_it_cannot_read(http, owner, key_id):
    answer = infer(http, key_id, owner.inputs(IMAGE))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert owner.scores(answer.content) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


def test_it_says_how_long_the_evaluation_took(http, owner, key_id):
    first, second = (infer(http, key_id, owner.inputs(IMAGE)).headers["server-timing"] for _ in range(2))
    pattern = r"evaluation;dur=(\d+\.\d), keys;dur=(\d+\.\d), total;dur=(\d+\.\d)"
    evaluation, keys, total = map(float, re.fullmatch(pattern, first).groups())
    assert 0 < evaluation < total
    assert keys > 0
    assert float(re.fullmatch(pattern, second)[2]) == 0  # the worker holds them


def test_it_lists_its_models_and_gives_their_manifests(http):
    models = http.get("/models").json()["models"]
    assert [model["name"] for model in models] == ["tiny", "slow", "wide"]
    answer = http.get(models[0]["manifest"])
    assert answer.content == TINY_MODEL.manifest.to_bytes()
    assert answer.headers["content-type"] == "application/json"


def test_it_is_healthy_and_answers_others_while_it_evaluates(running, http):
    slow = Owner(SLOW_MODEL)
    key_id = http.post("/models/slow/keys", content=slow.keys).json()["keys"]
    body = slow.inputs(IMAGE)
    with ThreadPoolExecutor() as pool:
        evaluation = pool.submit(infer, http, key_id, body, "slow")
        waits = []
        while not evaluation.done():
            started = time.perf_counter()
            assert http.get("/healthz").json() == {"status": "ok"}
            waits.append(time.perf_counter() - started)
            time.sleep(0.01)
    assert evaluation.result().status_code == 200
    assert len(waits) > 5
    assert max(waits) < 0.5


def test_its_interface_is_described_with_examples(http):
    paths = http.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/healthz",
        "/models",
        "/models/{model}/manifest",
        "/models/{model}/keys",
        "/keys/{key_id}",
        "/infer",
    }
    operation = paths["/infer"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/octet-stream"}
    assert set(operation["responses"]["200"]["content"]) == {"application/octet-stream"}
    assert {parameter["name"] for parameter in operation["parameters"]} == {"model", "keys"}
    assert "application/problem+json" in operation["responses"]["413"]["content"]


def test_it_serves_no_page_with_scripts_from_elsewhere(http):
    for path in ("/docs", "/docs/oauth2-redirect", "/redoc"):
        assert_problem(http.get(path), 404, "not-found")


# Keys ------------------------------------------------------------------------------------------


def test_unknown_and_deleted_keys_are_unknown(http, owner, key_id):
    body = owner.inputs(IMAGE)
    assert_problem(infer(http, "x" * 43, body), 404, "unknown-keys")
    assert http.delete(f"/keys/{key_id}").status_code == 204
    assert_problem(infer(http, key_id, body), 404, "unknown-keys")
    assert_problem(http.delete(f"/keys/{key_id}"), 404, "unknown-keys")


def test_key_ids_are_long_and_differ(http, owner):
    ids = {http.post("/models/tiny/keys", content=owner.keys).json()["keys"] for _ in range(3)}
    assert len(ids) == 3
    assert all(len(key_id) >= 43 for key_id in ids)


def test_keys_that_a_worker_had_to_drop_are_loaded_again(http, owner):
    ids = [http.post("/models/tiny/keys", content=owner.keys).json()["keys"] for _ in range(6)]
    body = owner.inputs(IMAGE)
    for key_id in [*ids, *ids]:
        assert infer(http, key_id, body).status_code == 200


def test_keys_that_go_while_a_request_waits_are_gone_for_it(http):
    slow = Owner(SLOW_MODEL)
    key_ids = [http.post("/models/slow/keys", content=slow.keys).json()["keys"] for _ in range(2)]
    body = slow.inputs(IMAGE)
    with ThreadPoolExecutor() as pool:
        under_way, waits = [], []
        for key_id, requests in zip(key_ids, (under_way, waits), strict=True):
            requests.append(pool.submit(infer, http, key_id, body, "slow"))
            time.sleep(0.1)
        for key_id in key_ids:
            assert http.delete(f"/keys/{key_id}").status_code == 204
    assert under_way[0].result().status_code == 200
    assert_problem(waits[0].result(), 404, "unknown-keys")


def test_keys_of_another_model_are_refused(http, key_id):
    body = Owner(SLOW_MODEL).inputs(IMAGE)
    assert_problem(infer(http, key_id, body, "slow"), 400, "key-set-mismatch")


def test_keys_and_inputs_of_another_parameter_set_are_refused(http, owner):
    assert_problem(http.post("/models/wide/keys", content=owner.keys), 400, "parameter-mismatch")
    wide = Owner(WIDE_MODEL)
    assert_problem(http.post("/models/tiny/keys", content=wide.keys), 413, "payload-too-large")
    key_id = http.post("/models/wide/keys", content=wide.keys).json()["keys"]
    assert_problem(infer(http, key_id, owner.inputs(IMAGE), "wide"), 400, "parameter-mismatch")


# Bad requests ----------------------------------------------------------------------------------


def test_an_unknown_model_is_unknown(http):
    for answer in (
        http.get("/models/nothing/manifest"),
        http.post("/models/nothing/keys", content=b"x"),
        infer(http, "x" * 43, b"x", "nothing"),
    ):
        assert_problem(answer, 404, "unknown-model")
        assert "nothing" not in answer.json()["detail"]  # what a client sent is not echoed


def test_a_truncated_body_is_refused(http, owner, key_id):
    body = owner.inputs(IMAGE)
    assert_problem(infer(http, key_id, body[:-1]), 400, "frame-length")
    assert_problem(infer(http, key_id, b""), 400, "frame-length")
    assert_problem(http.post("/models/tiny/keys", content=owner.keys[:100_000]), 400, "frame-length")


def test_an_oversized_body_is_refused_and_the_connection_closed(http, owner, key_id):
    answer = infer(http, key_id, owner.inputs(IMAGE) + b"\0")
    assert_problem(answer, 413, "payload-too-large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_of_two_lengths_is_refused_and_the_connection_closed(http, method):
    headers = {"Content-Length": "5", "Transfer-Encoding": "chunked"}
    answer = http.request(method, "/models/tiny/manifest", headers=headers, content=b"0\r\n\r\n")
    assert_problem(answer, 400, "ambiguous-length")
    assert answer.headers["connection"] == "close"


def test_a_huge_head_is_refused_and_the_connection_closed(http):
    for answer in (
        http.get("/healthz", headers={"X": "y" * MAX_HEAD_BYTES}),
        http.get("/healthz", headers=[("X", "y")] * (MAX_HEAD_BYTES // 6)),
        http.get("/healthz", params={"x": "y" * MAX_HEAD_BYTES}),
        http.get("/" + "y" * MAX_HEAD_BYTES),
    ):
        assert_problem(answer, 431, "head-too-large")
        assert answer.headers["connection"] == "close"
    assert http.get("/healthz", headers={"X": "y" * (MAX_HEAD_BYTES // 2)}).status_code == 200


def test_malformed_parameters_are_named_and_not_echoed(http):
    answer = http.post("/infer", params={"keys": "private" * 100})
    assert_problem(answer, 422, "bad-request")
    assert "keys, model" in answer.json()["detail"]
    assert "private" not in answer.text


def test_what_does_not_exist_is_a_problem_too(http):
    assert_problem(http.get("/secrets"), 404, "not-found")
    assert_problem(http.put("/models"), 405, "method-not-allowed")


def test_it_sends_nobody_to_the_host_that_a_request_names(http):
    answer = http.get("/models/", headers={"Host": "elsewhere.example"})
    assert_problem(answer, 404, "not-found")


def test_an_unexpected_error_says_nothing_of_its_cause(running, http, monkeypatch, caplog):
    def fail(_name: str) -> None:
        raise RuntimeError("the cause")

    monkeypatch.setattr(running.service, "model", fail)
    answer = http.get("/models/tiny/manifest")
    assert_problem(answer, 500, "internal-error")
    assert "cause" not in answer.text.replace("the service failed; its log has the cause", "")
    assert "the cause" in caplog.text


def test_the_log_has_a_line_a_request_and_no_key_id(http, owner, key_id, caplog):
    with caplog.at_level(logging.INFO):
        infer(http, key_id, owner.inputs(IMAGE))
        http.delete(f"/keys/{key_id}")
    facts = [record.facts for record in caplog.records if record.getMessage() == "request"]
    assert [(fact["method"], fact["route"], fact["status"]) for fact in facts] == [
        ("POST", "/infer", 200),
        ("DELETE", "/keys/{key_id}", 204),
    ]
    logged = [record for record in caplog.records if record.name.startswith("heinfer")]
    assert all(key_id not in str(record.__dict__) for record in logged)


def test_the_tiny_ring_is_secure():
    assert TINY.log_qp <= 106

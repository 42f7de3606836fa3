"""The service over HTTP, in this process: answers, refusals, limits, and keys that come and go."""

import asyncio
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from asking import MODEL, infer, of, register, registered, to
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from gated import held_worker
from in_process import RunningService, running_service
from owner import Owner
from server_process import wait_until
from starlette.types import ASGIApp
from tiny_model import TINY, WIDE, cleartext_scores, tiny_bundle

from heinfer.errors import BackendError, EvaluationTimeoutError, WorkerFailedError
from heinfer_server import service as service_module
from heinfer_server.evaluation.worker import Evaluation
from heinfer_server.service import EVALUATIONS_PER_WORKER_AND_TENANT
from heinfer_server.telemetry import background
from heinfer_server.web.app import _ROUTERS

SECONDS = 60.0
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
SLOW_MODEL = tiny_bundle("slow", idle_rotations=400)
WIDE_MODEL = tiny_bundle("wide", parameters=WIDE)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL, SLOW_MODEL, WIDE_MODEL]) as service:
        yield service


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


@pytest.fixture
def key_id(http: httpx.Client, owner: Owner) -> str:
    answer = register(http, owner.keys)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/keys/{answer.json()['keys']}"
    return answer.json()["keys"]


def several(owner: Owner, count: int) -> list[bytes]:
    """Evaluation keys of one secret key, made several times: all of them serve it, and no two are the same."""
    return [owner.codec.evaluation_keys(owner.secret, lambda _done: None) for _ in range(count)]


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


def test_it_says_how_long_the_evaluation_took(http, owner):
    (unloaded,) = several(owner, 1)
    key_id = registered(http, unloaded)
    first, second = (infer(http, key_id, owner.inputs(IMAGE)).headers["server-timing"] for _ in range(2))
    names = ("body", "check", "wait", "worker", "keys", "evaluation", "total")
    pattern = ", ".join(rf"{name};dur=(?P<{name}>\d+\.\d)" for name in names)
    took = {name: float(value) for name, value in re.fullmatch(pattern, first).groupdict().items()}
    assert 0 < took["evaluation"] < took["worker"] <= took["total"]
    assert took["keys"] > 0
    assert float(re.fullmatch(pattern, second)["keys"]) == 0  # the worker holds them


def test_it_lists_its_models_and_gives_their_manifests(http):
    models = http.get("/models").json()["models"]
    assert [model["name"] for model in models] == ["tiny", "slow", "wide"]
    answer = http.get(models[0]["manifest"])
    assert answer.content == MODEL.manifest.to_bytes()
    assert answer.headers["content-type"] == "application/json"


def test_it_is_healthy_and_answers_others_while_it_evaluates(running, http, owner, key_id):
    with ThreadPoolExecutor() as pool:
        with held_worker(running) as held:
            evaluation = pool.submit(infer, http, key_id, owner.inputs(IMAGE))
            wait_until(lambda: len(held.asked) == 1, SECONDS)
            assert http.get("/healthz").json() == {"status": "ok"}
            assert register(http, owner.keys).status_code == 201
            assert not evaluation.done()
        assert evaluation.result().status_code == 200


def test_its_interface_is_described_with_examples(http):
    paths = http.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/healthz",
        "/readyz",
        "/models",
        "/models/{model}/manifest",
        "/models/{model}/keys",
        "/models/{model}/uploads",
        "/uploads/{upload_id}",
        "/keys",
        "/keys/{key_id}",
        "/infer",
        "/jobs",
        "/jobs/{job_id}",
        "/jobs/{job_id}/result",
        "/jobs/{job_id}/events",
    }
    operation = paths["/infer"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/octet-stream"}
    assert set(operation["responses"]["200"]["content"]) == {"application/octet-stream"}
    assert {parameter["name"] for parameter in operation["parameters"]} == {
        "model",
        "keys",
        "manifest",
        "Heinfer-Timeout",
    }
    assert "application/problem+json" in operation["responses"]["413"]["content"]


def test_the_description_is_written_once(running, http, monkeypatch):
    written = http.get("/openapi.json").content
    monkeypatch.setattr(running.app, "openapi", dict)
    assert http.get("/openapi.json").content == written


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


def test_key_ids_are_long_and_those_of_their_content(http, owner, key_id):
    others = {registered(http, keys) for keys in several(owner, 2)}
    assert len(others | {key_id}) == 3
    assert all(len(other) == 64 for other in others)
    assert registered(http, owner.keys) == key_id
    assert registered(http, Owner(SLOW_MODEL).keys, SLOW_MODEL) != key_id


def test_keys_that_a_worker_had_to_drop_are_loaded_again(http, owner):
    ids = [registered(http, keys) for keys in several(owner, 6)]
    body = owner.inputs(IMAGE)
    for key_id in [*ids, *ids]:
        assert infer(http, key_id, body).status_code == 200


def test_keys_that_go_while_a_request_waits_are_gone_for_it(running, http, owner):
    key_ids = [registered(http, keys) for keys in several(owner, 3)]
    body = owner.inputs(IMAGE)
    with ThreadPoolExecutor() as pool:
        with held_worker(running) as held:
            under_way = pool.submit(infer, http, key_ids[0], body)
            wait_until(lambda: len(held.asked) == 1, SECONDS)
            waiting = [pool.submit(infer, http, key_id, body) for key_id in key_ids[1:]]
            wait_until(lambda: running.service.workers.waiting == 2, SECONDS)
            for key_id in key_ids[:2]:
                assert http.delete(f"/keys/{key_id}").status_code == 204
        assert [request.result().status_code for request in (under_way, *waiting)] == [200, 404, 200]
        assert_problem(waiting[0].result(), 404, "unknown-keys")


def test_keys_that_are_deleted_do_not_stay_loaded(running, http, owner, key_id):
    worker = running.worker
    assert infer(http, key_id, owner.inputs(IMAGE)).status_code == 200
    assert key_id in worker.loaded
    with held_worker(running) as held:
        assert http.delete(f"/keys/{key_id}").status_code == 204
        wait_until(lambda: held.forgotten == [(key_id,)], SECONDS)
    assert key_id not in worker.loaded
    other = registered(http, several(owner, 1)[0])
    assert infer(http, other, owner.inputs(IMAGE)).status_code == 200


def test_a_worker_lets_go_of_deleted_keys_when_it_is_done(running, http, owner, key_id):
    with ThreadPoolExecutor() as pool:
        with held_worker(running) as held:
            evaluation = pool.submit(infer, http, key_id, owner.inputs(IMAGE))
            wait_until(lambda: len(held.asked) == 1, SECONDS)
            assert http.delete(f"/keys/{key_id}").status_code == 204
            assert held.forgotten == []
        assert evaluation.result().status_code == 200
    assert held.forgotten == [(key_id,)]


def test_keys_that_had_to_go_for_others_do_not_stay_loaded(tmp_path, owner):
    with running_service(tmp_path, [MODEL], key_memory=len(owner.keys)) as running:
        first = registered(running.http, owner.keys)
        assert infer(running.http, first, owner.inputs(IMAGE)).status_code == 200
        with held_worker(running) as held:
            (other,) = several(owner, 1)
            assert register(running.http, other).status_code == 201
            wait_until(lambda: held.forgotten == [(first,)], SECONDS)


def test_keys_of_another_model_are_refused(http, key_id):
    body = Owner(SLOW_MODEL).inputs(IMAGE)
    assert_problem(infer(http, key_id, body, SLOW_MODEL), 400, "key-set-mismatch")


def test_keys_and_inputs_of_another_parameter_set_are_refused(http, owner):
    assert_problem(register(http, owner.keys, WIDE_MODEL), 400, "frame-binding")
    wide = Owner(WIDE_MODEL)
    assert_problem(register(http, wide.keys), 413, "payload-too-large")
    key_id = registered(http, wide.keys, WIDE_MODEL)
    assert_problem(infer(http, key_id, owner.inputs(IMAGE), WIDE_MODEL), 400, "frame-binding")


# Clients who go away ---------------------------------------------------------------------------


async def ask_and_leave(app: ASGIApp, key_id: str, body: bytes, leave: asyncio.Event) -> None:
    """Have the application answer a request to /infer whose client goes away when told to."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, object]:
        if not messages:
            await leave.wait()
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        raise AssertionError("nobody is there to read it")

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/infer",
        "query_string": urlencode(to(key_id)).encode(),
        "headers": [],
    }
    await app(scope, receive, send)


def test_a_request_whose_client_goes_away_while_it_waits_is_not_evaluated(running, http, owner, key_id, caplog):
    body, leave = owner.inputs(IMAGE), asyncio.Event()
    with ThreadPoolExecutor() as pool:
        with held_worker(running) as held, caplog.at_level(logging.INFO):
            under_way = pool.submit(infer, http, key_id, body)
            wait_until(lambda: len(held.asked) == 1, SECONDS)
            waits = pool.submit(infer, http, key_id, body)
            wait_until(lambda: running.service.workers.waiting == 1, SECONDS)
            abandoned = running.portal.start_task_soon(ask_and_leave, running.app, key_id, body, leave)
            wait_until(lambda: running.service.workers.waiting == 2, SECONDS)
            running.portal.call(leave.set)
            abandoned.result(SECONDS)  # while the worker is still busy with another
            wait_until(lambda: running.service.workers.waiting == 1, SECONDS)
            assert running.service.evaluations.inside == 2  # its place is another's
        assert [request.result().status_code for request in (under_way, waits)] == [200, 200]
    assert len(held.evaluated) == 2
    assert "client went away" in [record.facts["reason"] for record in caplog.records if record.message == "request"]


def test_a_client_that_asks_for_much_keeps_nobody_from_their_turn(running, http, owner):
    greedy, other = (registered(http, keys) for keys in several(owner, 2))
    body = owner.inputs(IMAGE)
    with ThreadPoolExecutor(EVALUATIONS_PER_WORKER_AND_TENANT + 1) as pool:
        with held_worker(running) as held:
            many = [pool.submit(infer, http, greedy, body) for _ in range(EVALUATIONS_PER_WORKER_AND_TENANT)]
            wait_until(lambda: running.service.workers.waiting == len(many) - 1, SECONDS)
            assert_problem(infer(http, greedy, body), 429, "busy")
            one = pool.submit(infer, http, other, body)
            wait_until(lambda: running.service.workers.waiting == len(many), SECONDS)
        assert [request.result().status_code for request in (*many, one)] == [200] * (len(many) + 1)
    assert held.evaluated.index(other) == 1  # after the one under way: what has cost nothing yet goes first


# Bad requests ----------------------------------------------------------------------------------


# Workers that fail -----------------------------------------------------------------------------


def failing(running: RunningService, monkeypatch, errors: list[Exception]) -> list[str]:
    """Have the next evaluations fail with these errors; returns a list that grows with the keys of each."""
    worker = running.worker
    evaluate, tried = worker.evaluate, []

    async def fail_first(request: Evaluation) -> object:
        tried.append(request.key_id)
        if errors:
            await worker.stop()
            raise errors.pop(0)
        return await evaluate(request)

    monkeypatch.setattr(worker, "evaluate", fail_first)
    return tried


def test_a_request_is_tried_once_more_and_then_fails(running, http, owner, key_id, monkeypatch, caplog):
    tried = failing(running, monkeypatch, [WorkerFailedError("died")])
    assert owner.scores(infer(http, key_id, owner.inputs(IMAGE)).content) == pytest.approx(
        cleartext_scores(IMAGE), abs=0.05
    )
    assert tried == [key_id] * 2
    assert "evaluation tried again" in caplog.text
    tried = failing(running, monkeypatch, [WorkerFailedError("died"), EvaluationTimeoutError("hung"), OSError("never")])
    assert_problem(infer(http, key_id, owner.inputs(IMAGE)), 504, "evaluation-timeout")
    assert tried == [key_id] * 2


def test_what_is_refused_is_not_tried_again(running, http, owner, key_id, monkeypatch):
    tried = failing(running, monkeypatch, [BackendError("SEAL failed to add")])
    assert_problem(infer(http, key_id, owner.inputs(IMAGE)), 422, "backend-error")
    assert tried == [key_id]


def test_a_request_whose_sender_waits_no_longer_is_not_begun(running, http, owner, key_id):
    with ThreadPoolExecutor() as pool, held_worker(running) as held:
        first = pool.submit(infer, http, key_id, owner.inputs(IMAGE))
        wait_until(lambda: len(held.evaluated) == 1, SECONDS)
        params = to(key_id)
        late = http.post("/infer", params=params, content=owner.inputs(IMAGE), headers={"Heinfer-Timeout": "0.05"})
        assert_problem(late, 504, "deadline-exceeded")
        wait_until(lambda: running.service.workers.waiting == 0, SECONDS)
    assert first.result(SECONDS).status_code == 200
    assert len(held.evaluated) == 1


@pytest.mark.parametrize("header", ["0", "-1", "nan", "inf", "soon", "1e9"])
def test_a_time_that_is_none_is_refused(http, owner, key_id, header):
    params = to(key_id)
    answer = http.post("/infer", params=params, content=b"", headers={"Heinfer-Timeout": header})
    assert_problem(answer, 422, "bad-request")


def test_an_unknown_model_is_unknown(http):
    for answer in (
        http.get("/models/nothing/manifest"),
        http.post("/models/nothing/keys", content=b"x"),
        http.post("/infer", params=of(model="nothing", keys="x" * 43), content=b"x"),
    ):
        assert_problem(answer, 404, "unknown-model")
        assert "nothing" not in answer.json()["detail"]  # what a client sent is not echoed


def test_a_truncated_body_is_refused(http, owner, key_id):
    body = owner.inputs(IMAGE)
    assert_problem(infer(http, key_id, body[:-1]), 400, "frame-length")
    assert_problem(infer(http, key_id, b""), 400, "frame-length")
    assert_problem(register(http, owner.keys[:100_000]), 400, "frame-length")


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


def test_malformed_parameters_are_named_and_not_echoed(http):
    answer = http.post("/infer", params={"keys": "private" * 100})
    assert_problem(answer, 422, "bad-request")
    assert "keys, model" in answer.json()["detail"]
    assert "private" not in answer.text


def test_what_does_not_exist_is_a_problem_too(http):
    assert_problem(http.get("/secrets"), 404, "not-found")
    assert_problem(http.put("/models"), 405, "method-not-allowed")


def test_it_sends_nobody_to_the_host_that_a_request_names(http):
    assert_problem(http.get("/models/"), 404, "not-found")


HERE = ("localhost", "LOCALHOST:1", "127.0.0.1:8000", "127.1.2.3", "[::1]", "[::1]:8000")
ELSEWHERE = (
    "elsewhere.example",
    "localhost.elsewhere.example:8000",
    "127.0.0.1.elsewhere.example",
    "192.0.2.1",
    "[::2]",
)
NONE = ("", "null", "[::1", "localhost@elsewhere.example", "\xff", ":8000", "0.0.0.0", "1" * 9999)


@pytest.mark.parametrize("path", ["/healthz", "/models", "/openapi.json", "/nothing"])
def test_without_api_keys_it_is_for_who_means_this_machine(http, path):
    expected = http.get(path).status_code
    for host in HERE:
        assert http.get(path, headers={"Host": host}).status_code == expected
    for host in ELSEWHERE + NONE:
        answer = http.get(path, headers={"Host": host.encode("latin-1")})
        assert_problem(answer, 421, "misdirected-request")
        assert "elsewhere" not in answer.text


def test_without_api_keys_it_answers_no_page_of_another_machine(http, owner):
    for host in HERE:
        assert http.get("/models", headers={"Origin": f"http://{host}"}).status_code == 200
    for origin in (*(f"http://{host}" for host in ELSEWHERE), *NONE, "https://elsewhere.example", "localhost"):
        answer = http.post(
            "/models/tiny/keys", params=of(), headers={"Origin": origin.encode("latin-1")}, content=owner.keys
        )
        assert_problem(answer, 403, "foreign-origin")


def test_an_unexpected_error_says_nothing_of_its_cause(running, http, monkeypatch, caplog):
    def fail(_name: str) -> None:
        raise RuntimeError("the cause")

    monkeypatch.setattr(running.service.models, "current", fail)
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


# What runs in threads, and in the background ---------------------------------------------------


def dependencies(dependant: Dependant) -> Iterator[Dependant]:
    for below in dependant.dependencies:
        yield below
        yield from dependencies(below)


def test_no_request_takes_a_thread_to_find_what_its_route_depends_on():
    routes = [route for part in _ROUTERS for route in part.routes if isinstance(route, APIRoute)]
    found = {one.call for route in routes for one in dependencies(route.dependant)}
    assert len(found) >= 3
    for call in found:
        assert asyncio.iscoroutinefunction(call) or asyncio.iscoroutinefunction(type(call).__call__), call


@pytest.mark.parametrize(
    ("owner_of", "name"),
    [
        (lambda service: service.jobs, "evict_expired"),
        (lambda service: service.access, "refresh"),
        (lambda service: service.metrics, "update"),
    ],
    ids=["house", "tenants", "metrics"],
)
@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_background_work_that_fails_goes_on_after_a_line_in_the_log(
    tmp_path, monkeypatch, caplog, owner_of, name, error
):
    monkeypatch.setattr(service_module, "HOUSEKEEPING_SECONDS", 0.01)
    monkeypatch.setattr(background, "PAUSE_SECONDS", 0.01, raising=False)
    monkeypatch.setattr(service_module, "REFRESH_SECONDS", 0.01)
    with running_service(tmp_path, [MODEL]) as running:
        rounds: list[None] = []

        def fails() -> None:
            rounds.append(None)
            raise error

        monkeypatch.setattr(owner_of(running.service), name, fails)
        wait_until(lambda: len(rounds) >= 3, SECONDS)
    said = [record for record in caplog.records if record.message == "background work failed"]
    assert said
    assert all(record.levelname == "ERROR" and record.exc_info for record in said)

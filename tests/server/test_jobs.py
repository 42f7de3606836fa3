"""Evaluations that nobody waits for on the line."""

import asyncio
import json
import logging
import os
import signal
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import numpy as np
import pytest
from asking import registered, to
from gated import held_worker
from hypothesis import given
from hypothesis import strategies as st
from in_process import URL, Recorded, RunningService, running_service
from installed import INSTALLED
from owner import Owner
from server_process import wait_until
from test_server import assert_problem
from tiny_model import DEEP, LABELS, cleartext_scores, tiny_bundle

from heinfer.backends import open_runtime
from heinfer.backends.control import StepControl
from heinfer.errors import (
    BackendError,
    CancelledError,
    IdempotencyConflictError,
    ServiceUnavailableError,
    UnknownJobError,
)
from heinfer.formats.frames import decode_ciphertexts, decode_keys
from heinfer_client import AsyncClient, Client, retries
from heinfer_client import jobs as client_jobs
from heinfer_server.admission.access import DEFAULT_TENANT
from heinfer_server.admission.concurrency import ConcurrencyLimit
from heinfer_server.evaluation import progress
from heinfer_server.evaluation.jobs import JOBS_OF_A_TENANT, Jobs, Result, State
from heinfer_server.evaluation.latency import Latency
from heinfer_server.evaluation.progress import Cell, Watch, Watcher, shared_memory

SECONDS = 60.0
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
MODEL = tiny_bundle()
LONG = tiny_bundle("long", parameters=DEEP, idle_rotations=150)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL, LONG]) as service:
        yield service


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


@pytest.fixture
def key_id(http, owner) -> str:
    return registered(http, owner.keys)


def begin(http, key_id: str, body: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.post("/jobs", params=to(key_id), content=body, headers=named)


def finished(http, job_id: str) -> dict:
    wait_until(lambda: http.get(f"/jobs/{job_id}").json()["state"] not in ("waiting", "running"), SECONDS)
    return http.get(f"/jobs/{job_id}").json()


# Over HTTP -------------------------------------------------------------------------------------


def test_a_job_is_begun_watched_and_its_result_fetched(http, owner, key_id):
    begun = begin(http, key_id, owner.inputs(IMAGE))
    assert begun.status_code == 202
    job = begun.json()
    assert begun.headers["location"] == f"/jobs/{job['job']}"
    assert finished(http, job["job"]) == {"job": job["job"], "state": "done", "progress": 1.0, "code": None}
    result = http.get(f"/jobs/{job['job']}/result")
    assert owner.scores(result.content) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)
    assert "evaluation;dur=" in result.headers["server-timing"]


def test_its_events_end_when_it_is_over(running, http, owner, key_id):
    with held_worker(running):
        job = begin(http, key_id, owner.inputs(IMAGE)).json()["job"]
        assert http.get(f"/jobs/{job}").json()["state"] in ("waiting", "running")
        assert_problem(http.get(f"/jobs/{job}/result"), 409, "job-not-done")
    answer = http.get(f"/jobs/{job}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    assert all(name == "event: progress" for name, _ in events)
    states = [json.loads(data.removeprefix("data: ")) for _, data in events]
    assert states[-1] == {"job": job, "state": "done", "progress": 1.0, "code": None}


def test_streams_of_events_have_a_bound_and_places_that_are_left_are_free(running, http, owner, key_id, monkeypatch):
    monkeypatch.setattr(running.service, "streams", ConcurrencyLimit(2, 1))
    with ThreadPoolExecutor() as pool:
        with held_worker(running):
            first, second = (f"/jobs/{begin(http, key_id, owner.inputs(IMAGE)).json()['job']}/events" for _ in range(2))
            until_the_end = pool.submit(http.get, first)
            wait_until(lambda: running.service.streams.inside == 1, SECONDS)
            refused = http.get(first)
            assert_problem(refused, 429, "busy")
            assert refused.headers["retry-after"]
            running.portal.call(look_and_leave, running, second)
            assert running.service.streams.inside == 1
        assert until_the_end.result(SECONDS).is_success
    assert running.service.streams.inside == 0


async def look_and_leave(running: RunningService, path: str) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(running.app), base_url=URL) as http:
        looking = asyncio.create_task(http.get(path))
        while running.service.streams.inside < 2:
            await asyncio.sleep(0.01)
        looking.cancel()
        await asyncio.wait({looking})


def test_a_job_that_waits_is_cancelled_and_never_evaluated(running, http, owner, key_id):
    with held_worker(running) as held:
        first, second = (begin(http, key_id, owner.inputs(IMAGE)).json()["job"] for _ in range(2))
        wait_until(lambda: running.service.workers.waiting == 1, SECONDS)
        assert http.delete(f"/jobs/{second}").status_code == 204
        assert_problem(http.get(f"/jobs/{second}"), 404, "unknown-job")
        wait_until(lambda: running.service.workers.waiting == 0, SECONDS)
    assert finished(http, first)["state"] == "done"
    assert len(held.evaluated) == 1
    assert running.service.evaluations.inside == 0


def test_a_job_that_runs_is_cancelled_and_its_worker_lives(running, http, caplog):
    caplog.set_level(logging.INFO)
    long = Owner(LONG)
    keys = registered(http, long.keys, LONG)
    worker = running.worker
    pid = worker.pid
    job = http.post("/jobs", params=to(keys, LONG), content=long.inputs(IMAGE)).json()["job"]
    inner = running.service.jobs.get(DEFAULT_TENANT.id, job)
    wait_until(lambda: 0 < inner.progress < 1, SECONDS)
    http.delete(f"/jobs/{job}")
    wait_until(lambda: inner.is_over, SECONDS)
    assert inner.state is State.CANCELLED
    with pytest.raises(CancelledError):
        inner.outcome()
    assert worker.pid == pid
    assert worker.running
    wait_until(lambda: "job over" in caplog.messages, SECONDS)
    (record,) = (record for record in caplog.records if record.message in ("job over", "evaluation failed"))
    assert (record.levelname, record.facts["state"]) == ("INFO", "cancelled")  # it is what its client wished


def test_the_same_request_under_one_key_is_one_job(http, owner, key_id):
    body = owner.inputs(IMAGE)
    first, again = (begin(http, key_id, body, Idempotency_Key="mine").json()["job"] for _ in range(2))
    assert first == again
    assert_problem(begin(http, key_id, owner.inputs(IMAGE), Idempotency_Key="mine"), 409, "idempotency-conflict")
    assert begin(http, key_id, body, Idempotency_Key="other").json()["job"] != first
    assert begin(http, key_id, body).json()["job"] != begin(http, key_id, body).json()["job"]
    assert_problem(begin(http, key_id, body, Idempotency_Key="a b"), 422, "bad-request")


def test_the_same_request_at_the_same_time_is_one_job(running, http, owner, key_id, monkeypatch):
    check = running.service.check

    async def slowly(*arguments: object) -> None:
        await check(*arguments)
        await asyncio.sleep(0.2)

    monkeypatch.setattr(running.service, "check", slowly)
    body = owner.inputs(IMAGE)
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(begin, http, key_id, body, Idempotency_Key="together") for _ in range(3)]
        assert len({answer.result(SECONDS).json()["job"] for answer in answers}) == 1


def test_what_is_wrong_is_refused_before_a_job_is_begun(http, owner, key_id):
    assert_problem(begin(http, "0" * 64, owner.inputs(IMAGE)), 404, "unknown-keys")
    assert_problem(begin(http, key_id, owner.inputs(IMAGE)[:-1]), 400, "frame-length")
    assert_problem(begin(http, key_id, owner.inputs(IMAGE) + b"\0"), 413, "payload-too-large")
    for path in ("", "/result", "/events"):
        assert_problem(http.get(f"/jobs/{'0' * 32}{path}"), 404, "unknown-job")
    assert_problem(http.delete(f"/jobs/{'0' * 32}"), 404, "unknown-job")


def test_a_failed_job_says_why(running, http, owner, key_id, monkeypatch):
    async def fail(*_arguments: object) -> object:
        raise BackendError("SEAL failed to add") from OSError()

    monkeypatch.setattr(running.worker, "evaluate", fail)
    job = begin(http, key_id, owner.inputs(IMAGE)).json()["job"]
    assert finished(http, job)["code"] == "backend-error"
    error = running.service.jobs.get(DEFAULT_TENANT.id, job).error
    assert error.__traceback__ is error.__cause__ is error.__context__ is None  # their frames hold the body
    assert_problem(http.get(f"/jobs/{job}/result"), 422, "backend-error")

    async def break_down(*_arguments: object) -> object:
        raise OSError("a path of ours")

    monkeypatch.setattr(running.worker, "evaluate", break_down)
    job = begin(http, key_id, owner.inputs(IMAGE)).json()["job"]
    assert finished(http, job)["code"] == "internal-error"
    answer = http.get(f"/jobs/{job}/result")
    assert_problem(answer, 500, "internal-error")
    assert "a path of ours" not in answer.text


def test_the_manifest_says_how_long_it_will_take(http):
    tiny, long = (
        float(http.get(f"/models/{name}/manifest").headers["heinfer-evaluation-seconds"]) for name in ("tiny", "long")
    )
    assert 0 < tiny < long


def test_what_others_evaluate_does_not_show_in_it():
    pace = Latency({"tiny": 0.02})
    before = pace.roughly("tiny")
    for seconds in (0.017, 0.02, 0.023):
        pace.note("tiny", seconds)
        assert pace.roughly("tiny") == before == 2**-5


# Jobs themselves -------------------------------------------------------------------------------


async def _nothing(_watch: object, _withdrawn: object) -> Result:
    return Result(b"", "", "")


def test_what_is_over_is_kept_for_a_while_and_not_too_much_of_it():
    async def run() -> None:
        now = [0.0]
        jobs = Jobs(10.0, lambda: now[0])
        mine = [
            jobs.begin("a", "tiny", _nothing, ExitStack(), f"{number}", b"x") for number in range(JOBS_OF_A_TENANT + 2)
        ]
        other = jobs.begin("b", "tiny", _nothing, ExitStack(), "0", b"y")
        for number, job in enumerate((*mine, other)):
            await job.task
            job.touched = number / 1000
        with pytest.raises(UnknownJobError):
            jobs.get("a", mine[0].id)
        assert jobs.get("a", mine[-1].id) is mine[-1]
        with pytest.raises(UnknownJobError):
            jobs.get("b", mine[-1].id)
        assert jobs.find_again("b", "0", b"y") is other
        with pytest.raises(IdempotencyConflictError):
            jobs.find_again("b", "0", b"z")
        assert jobs.find_again("a", "0", b"x") is None  # it had to go
        now[0] = 20.0
        assert jobs.find_again("b", "0", b"y") is None
        assert not list(jobs)

    asyncio.run(run())


def test_of_all_that_is_over_the_newest_are_kept(monkeypatch):
    monkeypatch.setattr("heinfer_server.evaluation.jobs.JOBS_KEPT", 3)

    async def run() -> None:
        jobs = Jobs(10.0, lambda: 1.0)
        begun = [jobs.begin(f"{number}", "tiny", _nothing, ExitStack(), "key", b"x") for number in range(5)]
        for number, job in enumerate(begun):
            await job.task
            job.touched = -number / 1000  # the first is the newest
        jobs.evict_expired()
        assert list(jobs) == begun[:3]

    asyncio.run(run())


def test_at_the_end_jobs_have_a_while_to_finish_and_to_be_fetched(monkeypatch):
    monkeypatch.setattr("heinfer_server.evaluation.jobs.FETCH_SECONDS", 0.1)

    async def run() -> None:
        async def until_withdrawn(watch: Watch, withdrawn: asyncio.Future[None]) -> Result:
            await withdrawn
            raise CancelledError("cancelled")

        closed = []
        place = ExitStack()
        place.callback(closed.append, True)
        jobs = Jobs(10.0)
        quick, endless = (
            jobs.begin("a", "tiny", _nothing, ExitStack(), ""),
            jobs.begin("a", "tiny", until_withdrawn, place, ""),
        )
        await jobs.drain(0.05)
        assert not endless.is_over
        await jobs.cancel_all()
        assert endless.task.done()
        assert (quick.state, endless.state) == (State.DONE, State.CANCELLED)
        assert closed == [True]

    asyncio.run(run())


def test_a_service_that_ends_begins_nothing_and_gives_results(running, http, owner, key_id, monkeypatch):
    job = begin(http, key_id, owner.inputs(IMAGE)).json()["job"]
    finished(http, job)
    monkeypatch.setattr(running.service, "is_ending", True)
    assert_problem(begin(http, key_id, owner.inputs(IMAGE)), 503, "service-unavailable")
    answer = http.post("/infer", params=to(key_id), content=owner.inputs(IMAGE))
    assert_problem(answer, 503, "service-unavailable")
    assert_problem(http.get("/readyz"), 503, "not-ready")
    assert http.get(f"/jobs/{job}/result").status_code == 200


# Workers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", INSTALLED)
def test_a_run_tells_how_far_it_is_and_can_be_cancelled(backend, owner):
    plan = MODEL.manifest.input
    runtime = open_runtime(MODEL.typed, backend=backend)
    parameters, wanted = owner.codec.parameters, MODEL.manifest
    keys = runtime.load_keys(decode_keys(owner.keys, parameters, wanted.keys_binding, wanted.keys.levels))
    frame = owner.inputs(IMAGE)
    inputs = runtime.load_inputs(
        decode_ciphertexts(
            frame, parameters, owner.codec.binding, count=1, level=plan.level, scale=plan.scale, seeded=True
        )
    )
    control = runtime.new_control()
    assert control.done == 0
    runtime.run(inputs, keys, control)
    assert control.done == runtime.steps
    control = runtime.new_control()
    control.cancel()
    with pytest.raises(CancelledError):
        runtime.run(inputs, keys, control)


def new_cell() -> Cell:
    with os.fdopen(shared_memory(), "r+b") as shared:
        return Cell(shared.fileno())


def test_the_cell_tells_of_one_evaluation_and_cancels_no_other(monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS", 0.001)
    cell, control, seen = new_cell(), StepControl(), Watch()
    with Watcher(cell).watched(7, control, 4):
        seen.begin(cell, 7)
        control.done = 1
        wait_until(lambda: seen.fraction == 0.25, 10)
        cell.cancel(6)
        time.sleep(0.02)
        assert not control.is_cancelled
        seen.cancel()
        wait_until(lambda: control.is_cancelled, 10)
    assert seen.fraction == 0


def test_who_is_cancelled_before_it_begins_is_cancelled_then():
    cell, control, seen = new_cell(), StepControl(), Watch()
    seen.cancel()
    seen.begin(cell, 3)
    with Watcher(cell).watched(3, control, 4):
        assert control.is_cancelled


@given(st.integers(-(2**63), 2**63 - 1))
def test_whatever_a_worker_writes_progress_is_within_its_bounds(done):
    with os.fdopen(shared_memory(), "r+b") as theirs:
        cell = Cell(theirs.fileno())
        theirs.write(struct.pack("<3q", 5, done, 0))
    seen = Watch()
    seen.begin(cell, 5)
    assert 0 <= seen.fraction <= 1


def test_a_worker_cannot_make_the_cell_shorter():
    descriptor = shared_memory()
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(descriptor, 0)
    with os.fdopen(descriptor, "rb") as shared:
        assert shared.read() == bytes(24)


# The client ------------------------------------------------------------------------------------


@pytest.fixture
def as_jobs(monkeypatch) -> None:
    monkeypatch.setattr("heinfer_client.session.LONG_SECONDS", -1.0)
    monkeypatch.setattr(client_jobs, "_FIRST_LOOK", 0.01)
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)


def assert_right(label: str) -> None:
    assert label == LABELS[int(cleartext_scores(IMAGE).argmax())]


def test_the_client_takes_the_way_that_fits(running, monkeypatch):
    transport = Recorded(running.transport)
    with Client(URL, model="tiny", transport=transport) as client:
        assert_right(client.encrypt_and_predict(IMAGE).label)
        assert transport.count("/infer") == 1
        monkeypatch.setattr("heinfer_client.session.LONG_SECONDS", -1.0)
        prediction = client.encrypt_and_predict(IMAGE)
        assert_right(prediction.label)
        assert prediction.server_seconds > 0
        assert (transport.count("/infer"), transport.count("/jobs"), transport.count("/result")) == (1, 1, 1)


def test_so_does_the_asynchronous_one(running, as_jobs):
    async def run() -> str:
        async with AsyncClient(URL, model="tiny", transport=httpx.ASGITransport(running.app)) as client:
            return (await client.encrypt_and_predict(IMAGE)).label

    assert_right(running.portal.call(run))


def ids(jobs: Jobs) -> set[str]:
    return {job.id for job in jobs}


class Faulty(httpx.BaseTransport):
    """Loses answers: of the requests whose numbers it is given."""

    def __init__(self, inner: httpx.BaseTransport, lost: set[int]) -> None:
        self._inner = inner
        self._lost = lost
        self.paths: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        answer = self._inner.handle_request(request)
        if len(self.paths) in self._lost:
            raise httpx.ReadError("lost")
        return answer


@pytest.mark.parametrize("lost", [{3}, {4}, {5}, {3, 4, 5}])
def test_an_answer_that_is_lost_costs_a_request_and_no_second_job(running, as_jobs, lost):
    jobs = running.service.jobs
    before = ids(jobs)
    transport = Faulty(running.transport, lost)
    with Client(URL, model="tiny", transport=transport) as client:
        assert_right(client.encrypt_and_predict(IMAGE).label)
    assert len(ids(jobs) - before) == 1


def test_a_job_that_the_service_has_forgotten_is_begun_again(running, as_jobs):
    class Forgets(Faulty):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if len(self.paths) == 3:
                running.portal.call(running.service.jobs.purge, {DEFAULT_TENANT.id})
            return super().handle_request(request)

    transport = Forgets(running.transport, set())
    with Client(URL, model="tiny", transport=transport) as client:
        assert_right(client.encrypt_and_predict(IMAGE).label)
    assert transport.paths.count("/jobs") == 2


def test_keys_that_the_server_dropped_are_registered_again(running, as_jobs):
    with Client(URL, model="tiny", transport=running.transport) as client:
        client.prepare()
        *_, newest = running.service.keys.of(DEFAULT_TENANT.id)
        running.portal.call(running.service.forget, DEFAULT_TENANT.id, newest.id)
        assert_right(client.encrypt_and_predict(IMAGE).label)


def test_a_job_that_takes_too_long_is_cancelled(running, as_jobs):
    transport = Recorded(running.transport)
    with Client(URL, model="tiny", transport=transport, timeout=2) as client:
        client.prepare()
        with held_worker(running), pytest.raises(ServiceUnavailableError, match="not done within 2 seconds"):
            client.encrypt_and_predict(IMAGE)
        assert [request.method for request in transport.requests].count("DELETE") == 1


def test_who_interrupts_the_client_cancels_the_job(running, as_jobs):
    class Interrupting(Recorded):
        is_over = False

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            looks = [seen.method for seen in self.requests].count("GET") - 1  # the other one is for the manifest
            if looks == 2 and not self.is_over:
                self.is_over = True
                os.kill(os.getpid(), signal.SIGINT)
            return super().handle_request(request)

    transport = Interrupting(running.transport)
    with Client(URL, model="tiny", transport=transport) as client:
        client.prepare()
        with held_worker(running), pytest.raises(KeyboardInterrupt):
            client.encrypt_and_predict(IMAGE)
        job = next(path for path in transport.paths if path.startswith("/jobs/"))
        assert [request.url.path for request in transport.requests if request.method == "DELETE"] == [job]
    assert_problem(running.http.get(job), 404, "unknown-job")


def test_who_cancels_the_asynchronous_one_does_so_too(running, as_jobs):
    jobs = running.service.jobs

    async def run() -> None:
        async with AsyncClient(URL, model="tiny", transport=httpx.ASGITransport(running.app)) as client:
            await client.prepare()
            before = ids(jobs)
            task = asyncio.create_task(client.encrypt_and_predict(IMAGE))
            while ids(jobs) == before:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)  # the client has heard of it
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ids(jobs) == before

    with held_worker(running):
        running.portal.call(run)


def test_a_service_that_cannot_be_told_does_not_keep_who_interrupts(running, as_jobs):
    class Dead(Recorded):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.startswith("/jobs/"):
                os.kill(os.getpid(), signal.SIGINT)
                raise httpx.ConnectError("gone")
            return super().handle_request(request)

    with Client(URL, model="tiny", transport=Dead(running.transport)) as client:
        client.prepare()
        with pytest.raises(KeyboardInterrupt):
            client.encrypt_and_predict(IMAGE)


def test_a_service_that_never_answers_is_given_up(running, as_jobs):
    transport = Faulty(running.transport, set(range(3, 100)))
    with Client(URL, model="tiny", transport=transport) as client:
        with pytest.raises(ServiceUnavailableError):
            client.encrypt_and_predict(IMAGE)
        assert len(transport.paths) <= 2 + retries.TRIES

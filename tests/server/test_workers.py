"""One worker and those who want it: who is sent ahead, and what becomes of them when the one before fails."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from asking import infer, registered, to
from gated import GatedWorker, held_worker
from in_process import RunningService, running_service
from owner import Owner
from server_process import alive, wait_until
from test_server import several
from tiny_model import cleartext_scores, tiny_bundle

from heinfer.errors import WorkerFailedError
from heinfer_server import service as service_module
from heinfer_server.evaluation import prefetch
from heinfer_server.evaluation import process as process_module
from heinfer_server.evaluation.messages import Request

SECONDS = 60.0
MODEL = tiny_bundle()
IMAGES = [np.linspace(0, last, 16).reshape(4, 4) for last in (1, 0.5, 0.25)]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL]) as service:
        yield service


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


@pytest.fixture
def key_id(http: httpx.Client, owner: Owner) -> str:
    key_id: str = registered(http, owner.keys)
    assert infer(http, key_id, owner.inputs(IMAGES[0])).status_code == 200  # now they are loaded
    return key_id


@contextmanager
def one_ahead(
    running: RunningService, http: httpx.Client, owner: Owner, keys: list[str]
) -> Iterator[tuple[GatedWorker, list]]:
    """A request under way, and another, if there are keys for one, that has come into the room behind it."""
    with ThreadPoolExecutor() as threads, held_worker(running, takes_another=True) as worker:
        requests: list[Future[httpx.Response]] = []
        for key_id, image in zip(keys, IMAGES, strict=False):
            requests.append(threads.submit(infer, http, key_id, owner.inputs(image)))
            wait_until(lambda: worker.heard == 1, SECONDS)
        wait_until(lambda: running.service.workers.free == 2 - len(keys), SECONDS)
        yield worker, requests


def waiting(running: RunningService) -> int:
    """Requests that have no room."""
    number: int = running.service.workers.waiting
    return number


def assert_right(owner: Owner, requests: list[Future[httpx.Response]]) -> None:
    for request, image in zip(requests, IMAGES, strict=False):
        assert request.result(SECONDS).status_code == 200
        assert owner.scores(request.result().content) == pytest.approx(cleartext_scores(image), abs=0.05)


def worker_failures(running: RunningService) -> float:
    return running.service.metrics.registry.get_sample_value(
        "heinfer_worker_failures_total", {"code": WorkerFailedError.code}
    )


def retries(running: RunningService) -> float:
    return running.service.metrics.registry.get_sample_value("heinfer_evaluation_retries_total")


def test_a_request_is_sent_while_another_is_under_way(running, http, owner, key_id):
    with one_ahead(running, http, owner, [key_id] * 2) as (worker, requests):
        assert len(worker.ahead) == 1
        wait_until(worker.ahead[0].done, SECONDS)  # and evaluated, before the first is heard of
    assert_right(owner, requests)


def test_no_more_than_one_is_sent_ahead(running, http, owner, key_id):
    with ThreadPoolExecutor() as threads, one_ahead(running, http, owner, [key_id] * 2) as (worker, requests):
        requests.append(threads.submit(infer, http, key_id, owner.inputs(IMAGES[2])))
        wait_until(lambda: waiting(running) == 1, SECONDS)
        assert len(worker.ahead) == 1
    assert_right(owner, requests)


def test_nothing_is_sent_ahead_of_keys_that_are_not_loaded(running, http, owner, key_id):
    other = registered(http, several(owner, 1)[0])
    with one_ahead(running, http, owner, [key_id, other]) as (worker, requests):
        assert not worker.ahead
    assert_right(owner, requests)


def test_who_comes_after_a_long_evaluation_waits_for_any_worker(running, http, owner, key_id):
    with ThreadPoolExecutor() as threads, held_worker(running) as worker:  # which makes all of them long
        requests = [threads.submit(infer, http, key_id, owner.inputs(image)) for image in IMAGES[:2]]
        wait_until(lambda: waiting(running) == 1, SECONDS)
        assert not worker.ahead
    assert_right(owner, requests)


def test_a_request_that_was_sent_ahead_survives_the_death_of_its_worker(running, http, owner, key_id):
    before = retries(running)
    with one_ahead(running, http, owner, [key_id] * 2) as (worker, requests):
        wait_until(worker.ahead[0].done, SECONDS)
        running.portal.call(worker.stop)  # the answers are lost
    assert_right(owner, requests)
    assert retries(running) == before  # both were answered before: nothing is evaluated in vain


def test_a_request_is_sent_again_when_its_worker_dies_of_the_one_before(running, http, owner, key_id):
    before = retries(running)
    os.kill(running.worker.pid, signal.SIGSTOP)  # in the midst of the first, for ever
    with one_ahead(running, http, owner, [key_id] * 2) as (worker, requests):
        assert len(worker.ahead) == 1
        os.kill(worker.pid, signal.SIGKILL)
    assert_right(owner, requests)
    assert retries(running) == before + 1  # the second was not begun


def test_keys_that_are_deleted_serve_who_was_sent_ahead_and_go_then(running, http, owner, key_id):
    with one_ahead(running, http, owner, [key_id] * 2) as (worker, requests):
        assert http.delete(f"/keys/{key_id}").status_code == 204
    assert_right(owner, requests)
    wait_until(lambda: key_id not in worker.loaded, SECONDS)
    key_id = registered(http, several(owner, 1)[0])
    assert infer(http, key_id, owner.inputs(IMAGES[0])).status_code == 200


def test_who_was_sent_to_a_worker_that_is_stuck_waits_for_any(running, http, owner, key_id, monkeypatch):
    monkeypatch.setattr(prefetch, "STUCK_SECONDS", 0.1)
    with one_ahead(running, http, owner, [key_id] * 2) as (worker, requests):
        assert len(worker.ahead) == 1
        wait_until(lambda: waiting(running) == 1, SECONDS)
    assert_right(owner, requests)


def infer_soon(http: httpx.Client, key_id: str, body: bytes) -> httpx.Response:
    params, headers = to(key_id), {"Heinfer-Timeout": "0.1"}
    return http.post("/infer", params=params, content=body, headers=headers)


def test_what_nobody_waits_for_any_more_is_over_before_another_has_its_room(running, http, owner, key_id):
    with ThreadPoolExecutor() as threads, one_ahead(running, http, owner, [key_id]) as (worker, requests):
        assert infer_soon(http, key_id, owner.inputs(IMAGES[1])).status_code == 504
        assert len(worker.ahead) == 1
        requests.append(threads.submit(infer, http, key_id, owner.inputs(IMAGES[1])))
        wait_until(lambda: waiting(running) == 1, SECONDS)
        assert len(worker.ahead) == 1
    assert_right(owner, requests)
    assert worker.heard == 3  # the second was heard out


def test_what_hangs_when_nobody_waits_for_it_any_more_costs_the_next_no_try(tmp_path, owner):
    with running_service(tmp_path, [MODEL], evaluation_timeout=2.0) as running:
        http, before = running.http, retries(running)
        key_id = registered(http, owner.keys)
        assert infer(http, key_id, owner.inputs(IMAGES[0])).status_code == 200
        with ThreadPoolExecutor() as threads, one_ahead(running, http, owner, [key_id]) as (worker, requests):
            wait_until(worker.answers[0].done, SECONDS)
            os.kill(worker.pid, signal.SIGSTOP)
            assert infer_soon(http, key_id, owner.inputs(IMAGES[1])).status_code == 504
            assert len(worker.ahead) == 1
            requests.append(threads.submit(infer, http, key_id, owner.inputs(IMAGES[1])))
            wait_until(lambda: waiting(running) == 1, SECONDS)
        assert_right(owner, requests)
        assert retries(running) == before


def test_a_message_that_cannot_be_written_gives_nobody_another_answer(running, http, owner, key_id, monkeypatch):
    pid, before = running.worker.pid, retries(running)

    def no_buffers(_request: object, _pipe: object) -> None:
        raise OSError(errno.ENOBUFS, "no buffer space available")

    with ThreadPoolExecutor() as threads, one_ahead(running, http, owner, [key_id]) as (worker, requests):
        wait_until(worker.answers[0].done, SECONDS)
        with monkeypatch.context() as patch:
            patch.setattr(Request, "send", no_buffers)
            requests.append(threads.submit(infer, http, key_id, owner.inputs(IMAGES[1])))
            wait_until(lambda: not alive(pid), SECONDS)
    assert_right(owner, requests)
    assert retries(running) <= before + 1


def test_a_worker_that_was_closed_is_not_started_again(tmp_path, owner):
    with running_service(tmp_path, [MODEL]) as running:
        worker = running.worker
        running.portal.call(worker.close)
        with pytest.raises(WorkerFailedError):
            running.portal.call(worker.start)


def test_a_machine_without_threads_or_files_costs_tries_and_no_worker(running, http, owner, key_id, monkeypatch):
    worker = running.worker
    with monkeypatch.context() as patch:
        patch.setattr(process_module.Thread, "start", no_threads)
        running.portal.call(worker.stop)
        assert infer(http, key_id, owner.inputs(IMAGES[0])).status_code == 503
    assert infer(http, key_id, owner.inputs(IMAGES[0])).status_code == 200


def test_house_is_kept_while_workers_start(tmp_path, monkeypatch, owner):
    monkeypatch.setattr(service_module, "HOUSEKEEPING_SECONDS", 0.01)
    with running_service(tmp_path, [MODEL]) as fresh:
        assert fresh.http.get("/readyz").status_code == 200
        assert not worker_failures(fresh)


def test_a_worker_that_died_idle_is_started_again_without_a_request(running, http, owner, key_id):
    worker = running.worker
    failures = worker_failures(running)
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: http.get("/readyz").status_code == 503, SECONDS)
    running.portal.call(running.service.workers.maintain)
    wait_until(lambda: worker.running, SECONDS)
    assert http.get("/readyz").status_code == 200
    assert worker_failures(running) == failures + 1


def test_where_no_worker_can_evaluate_one_is_started_again_without_a_request(running, http, owner, key_id, monkeypatch):
    worker = running.worker
    with monkeypatch.context() as patch:
        patch.setattr(process_module.Thread, "start", no_threads)
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: not worker.running, SECONDS)
        running.portal.call(running.service.workers.maintain)
        wait_until(lambda: http.get("/readyz").status_code == 503, SECONDS)
    running.portal.call(running.service.workers.maintain)
    wait_until(lambda: http.get("/readyz").status_code == 200, SECONDS)


def no_threads(_thread: object) -> None:
    raise RuntimeError("can't start new thread")


def test_an_interpreter_that_this_user_may_not_run_is_named(tmp_path, monkeypatch):
    """As one below root's home folder is, for a service of another user."""
    (tmp_path / "home").write_text("")
    (tmp_path / "python").symlink_to("home")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    said = r"python cannot be run by user \d+ \(Permission denied\): .*home.* an interpreter that every user may run"
    with pytest.raises(WorkerFailedError, match=said), running_service(tmp_path, [tiny_bundle()]):
        pass

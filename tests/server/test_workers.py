"""One worker and those who want it: who is sent ahead, and what becomes of them when the one before fails."""

import asyncio
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
from heinfer_server.evaluation.prefetch import SHORT_SECONDS, Prefetched
from heinfer_server.evaluation.questions import Question
from heinfer_server.evaluation.worker import Evaluation
from heinfer_server.models import digest_of

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


class Line:
    """The only worker of a service, whose answers are heard when it is let go; what it is sent, it gets.

    Attributes:
        asked: what it answers, or will.
        sent: of each request that came to it, what was sent ahead.
        begun: how many answers are waited for, or were.
    """

    def __init__(self, running: RunningService) -> None:
        self._pool, self._lane = running.service.workers, running.lane
        self.worker = running.worker
        self._go = asyncio.Event()
        self.asked: list[asyncio.Future[object]] = []
        self.begun = 0
        self.sent: list[Prefetched | None] = []

    @property
    def waiting_for_room(self) -> int:
        return self._pool.waiting

    async def hold(self) -> None:
        ask, hear, prefetch = self.worker.ask, self.worker.hear, self._lane.prefetch

        def asked(question: Question[object]) -> asyncio.Future[object]:
            self.asked.append(ask(question))
            return self.asked[-1]

        async def hear_later(result: asyncio.Future[object], *seconds: float) -> object:
            async def later() -> object:
                await self._go.wait()
                return await result

            self.begun += 1
            return await hear(asyncio.ensure_future(later()), *seconds)

        def noted(request: Evaluation) -> Prefetched | None:
            self.sent.append(prefetch(request))
            return self.sent[-1]

        self.worker.ask, self.worker.hear, self._lane.prefetch = asked, hear_later, noted

    async def let_go(self) -> None:
        self._go.set()
        async with asyncio.timeout(SECONDS):
            while self._pool.free < 1 or self._pool.busy:
                await asyncio.sleep(0.01)
        del self.worker.ask, self.worker.hear, self._lane.prefetch


@contextmanager
def held_line(running: RunningService) -> Iterator[Line]:
    line = Line(running)
    running.portal.call(line.hold)
    try:
        yield line
    finally:
        running.portal.call(line.let_go)


@contextmanager
def one_ahead(
    running: RunningService, http: httpx.Client, owner: Owner, keys: list[str]
) -> Iterator[tuple[Line, list]]:
    """A request under way, and another that has come after it."""
    with ThreadPoolExecutor() as threads, held_line(running) as line:
        requests: list[Future[httpx.Response]] = []
        for number, (key_id, image) in enumerate(zip(keys, IMAGES, strict=False), start=1):
            requests.append(threads.submit(infer, http, key_id, owner.inputs(image)))
            wait_until(lambda: len(line.sent) == number, SECONDS)  # noqa: B023 - called at once
        wait_until(lambda: line.begun == 1, SECONDS)
        yield line, requests


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
    with one_ahead(running, http, owner, [key_id] * 2) as (line, requests):
        assert [sent is not None for sent in line.sent] == [False, True]
        wait_until(line.sent[1].done, SECONDS)  # and evaluated, before the first is heard of
    assert_right(owner, requests)


def test_no_more_than_one_is_sent_ahead(running, http, owner, key_id):
    with ThreadPoolExecutor() as threads, one_ahead(running, http, owner, [key_id] * 2) as (line, requests):
        requests.append(threads.submit(infer, http, key_id, owner.inputs(IMAGES[2])))
        wait_until(lambda: line.waiting_for_room == 1, SECONDS)
        assert len(line.sent) == 2
    assert_right(owner, requests)


def test_nothing_is_sent_ahead_of_keys_that_are_not_loaded(running, http, owner, key_id):
    other = registered(http, several(owner, 1)[0])
    with one_ahead(running, http, owner, [key_id, other]) as (line, requests):
        assert line.sent == [None, None]
    assert_right(owner, requests)


def test_who_comes_after_a_long_evaluation_waits_for_any_worker(running, http, owner, key_id, monkeypatch):
    monkeypatch.setitem(running.service.latency._expected, digest_of(MODEL.manifest), 2 * SHORT_SECONDS)
    with ThreadPoolExecutor() as threads, one_ahead(running, http, owner, [key_id]) as (line, requests):
        requests.append(threads.submit(infer, http, key_id, owner.inputs(IMAGES[1])))
        wait_until(lambda: line.waiting_for_room == 1, SECONDS)
        assert len(line.sent) == 1
    assert_right(owner, requests)


def test_a_request_that_was_sent_ahead_survives_the_death_of_its_worker(running, http, owner, key_id):
    before = retries(running)
    with one_ahead(running, http, owner, [key_id] * 2) as (line, requests):
        wait_until(line.sent[1].done, SECONDS)
        running.portal.call(line.worker.stop)  # the answers are lost
    assert_right(owner, requests)
    assert retries(running) == before  # both were answered before: nothing is evaluated in vain


def test_a_request_is_sent_again_when_its_worker_dies_of_the_one_before(running, http, owner, key_id):
    before = retries(running)
    worker = running.worker
    os.kill(worker.pid, signal.SIGSTOP)  # in the midst of the first, for ever
    with one_ahead(running, http, owner, [key_id] * 2) as (line, requests):
        assert line.sent[1] is not None
        os.kill(worker.pid, signal.SIGKILL)
    assert_right(owner, requests)
    assert retries(running) == before + 1  # the second was not begun


def test_keys_that_are_deleted_serve_who_was_sent_ahead_and_go_then(running, http, owner, key_id):
    with one_ahead(running, http, owner, [key_id] * 2) as (line, requests):
        assert http.delete(f"/keys/{key_id}").status_code == 204
    assert_right(owner, requests)
    wait_until(lambda: key_id not in line.worker.loaded, SECONDS)
    key_id = registered(http, several(owner, 1)[0])
    assert infer(http, key_id, owner.inputs(IMAGES[0])).status_code == 200


def test_who_was_sent_to_a_worker_that_is_stuck_waits_for_any(running, http, owner, key_id, monkeypatch):
    monkeypatch.setattr(prefetch, "STUCK_SECONDS", 0.1)
    with one_ahead(running, http, owner, [key_id] * 2) as (line, requests):
        assert line.sent[1] is not None
        wait_until(lambda: line.waiting_for_room == 1, SECONDS)
    assert_right(owner, requests)


def infer_soon(http: httpx.Client, key_id: str, body: bytes) -> httpx.Response:
    params, headers = to(key_id), {"Heinfer-Timeout": "0.1"}
    return http.post("/infer", params=params, content=body, headers=headers)


def test_what_nobody_waits_for_any_more_is_over_before_another_has_its_room(running, http, owner, key_id):
    with ThreadPoolExecutor() as threads, one_ahead(running, http, owner, [key_id]) as (line, requests):
        assert infer_soon(http, key_id, owner.inputs(IMAGES[1])).status_code == 504
        assert line.sent[1] is not None
        requests.append(threads.submit(infer, http, key_id, owner.inputs(IMAGES[1])))
        wait_until(lambda: line.waiting_for_room == 1, SECONDS)
        assert len(line.sent) == 2
    assert_right(owner, requests)
    assert line.begun == 3  # the second was heard out


def test_what_hangs_when_nobody_waits_for_it_any_more_costs_the_next_no_try(tmp_path, owner):
    with running_service(tmp_path, [MODEL], evaluation_timeout=2.0) as running:
        http, before = running.http, retries(running)
        key_id = registered(http, owner.keys)
        assert infer(http, key_id, owner.inputs(IMAGES[0])).status_code == 200
        with ThreadPoolExecutor() as threads, one_ahead(running, http, owner, [key_id]) as (line, requests):
            wait_until(line.asked[0].done, SECONDS)
            os.kill(line.worker.pid, signal.SIGSTOP)
            assert infer_soon(http, key_id, owner.inputs(IMAGES[1])).status_code == 504
            assert line.sent[1] is not None
            requests.append(threads.submit(infer, http, key_id, owner.inputs(IMAGES[1])))
            wait_until(lambda: line.waiting_for_room == 1, SECONDS)
        assert_right(owner, requests)
        assert retries(running) == before


def test_a_message_that_cannot_be_written_gives_nobody_another_answer(running, http, owner, key_id, monkeypatch):
    pid, before = running.worker.pid, retries(running)

    def no_buffers(_request: object, _pipe: object) -> None:
        raise OSError(errno.ENOBUFS, "no buffer space available")

    with ThreadPoolExecutor() as threads, one_ahead(running, http, owner, [key_id]) as (line, requests):
        wait_until(line.asked[0].done, SECONDS)
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

"""The service as real processes: deaths, hangs and ends."""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from asking import infer, of, registered, to
from owner import Owner
from server_process import ServerProcess, alive, cpu_seconds, launch, server_process, stopped, wait_until
from tiny_model import DEEP, cleartext_scores, tiny_bundle

from heinfer.errors import EvaluationTimeoutError, WorkerFailedError
from heinfer.formats import bundle
from heinfer.zoo import bundle_path, digits
from heinfer_client import Client, Prediction
from heinfer_server.admission.tenants import TenantFile
from heinfer_server.service import REGISTRATION_SECONDS, STREAMS_OF_A_TENANT

pytestmark = pytest.mark.slow

SECONDS = 120.0  # for what a worker has to be started anew
STARTED = 4.0  # processor time of a worker: it takes less to start
TOLERANCE = 0.3  # hundreds of rotations add noise, a wrong result is further off
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
TINY = tiny_bundle()
LONG = tiny_bundle("long", parameters=DEEP, idle_rotations=700)  # seconds
ENDLESS = tiny_bundle("endless", parameters=DEEP, idle_rotations=3_000)  # more seconds


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    settings = {"evaluation_timeout": 30, "metrics_port": 0}
    with server_process(tmp_path_factory.mktemp("server"), [TINY, LONG], **settings) as server:
        yield server


def client_of(server: ServerProcess, model: str = "tiny") -> Client:
    return Client(server.url, model=model, progress=False)


def assert_works(client: Client) -> None:
    assert client.encrypt_and_predict(IMAGE).scores == pytest.approx(cleartext_scores(IMAGE), abs=TOLERANCE)


@contextmanager
def long_request(server: ServerProcess, client: Client) -> Iterator[Future[Prediction]]:
    """A request whose evaluation is under way."""
    client.prepare()
    with ThreadPoolExecutor() as pool:
        request = pool.submit(client.encrypt_and_predict, IMAGE)
        server.wait_until_busy()
        assert not request.done()
        yield request


def strike_the_next(server: ServerProcess, struck: int) -> None:
    """Wait until another worker evaluates instead of one that was killed, and kill that too."""

    def evaluating() -> list[int]:
        return [pid for pid in server.workers() if pid != struck and alive(pid) and used(pid) > STARTED]

    wait_until(lambda: evaluating() != [], SECONDS)
    os.kill(evaluating()[0], signal.SIGKILL)


def used(pid: int) -> float:
    try:
        return cpu_seconds(pid)
    except OSError:
        return 0.0


def assert_right(prediction: Prediction) -> None:
    assert prediction.scores == pytest.approx(cleartext_scores(IMAGE), abs=TOLERANCE)


def test_the_line_at_readiness_names_url_and_models(server):
    assert server.ready_line == f"heinfer serves tiny, long at {server.url}\n"
    port = re.search(r'"metrics served".*"port": ?(\d+)', server.log)[1]
    assert "heinfer_workers_ready 1.0" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text


def test_a_request_whose_worker_is_killed_is_tried_again_elsewhere(server):
    with client_of(server, "long") as client, client_of(server) as other:
        other.prepare()
        before = server.worker()
        with long_request(server, client) as request:
            os.kill(before, signal.SIGKILL)
            assert_right(request.result(SECONDS))
        assert server.worker() != before
        assert_works(other)
    assert "worker failed" in server.log
    assert "evaluation tried again" in server.log


def test_a_request_that_kills_two_workers_fails_and_nothing_else_does(tmp_path):
    with (
        server_process(tmp_path, [TINY, ENDLESS], evaluation_timeout=SECONDS) as server,
        client_of(server, "endless") as client,
        client_of(server) as other,
    ):
        other.prepare()
        before = server.worker()
        with long_request(server, client) as request:
            os.kill(before, signal.SIGKILL)
            strike_the_next(server, before)
            with pytest.raises(WorkerFailedError) as caught:
                request.result(SECONDS)
        assert (caught.value.status, caught.value.server_code) == (503, "worker-failed")
        assert_works(other)


def test_workers_killed_while_they_start_hold_nothing_up(tmp_path):
    model = bundle.load(bundle_path("mnist-ffconv"))  # more than a pipe holds
    with server_process(tmp_path, [model]) as server, client_of(server, "mnist-ffconv") as client:
        client.prepare()
        for image in digits().images[:3]:
            before = server.workers()
            os.kill(server.worker(), signal.SIGKILL)
            with ThreadPoolExecutor() as pool:
                request = pool.submit(client.encrypt_and_predict, image)
                wait_until(lambda: server.workers() - before != set(), SECONDS)  # noqa: B023 - called at once
                for pid in server.workers() - before:
                    os.kill(pid, signal.SIGKILL)
                assert request.exception(SECONDS) is None or isinstance(request.exception(), WorkerFailedError)
        assert client.encrypt_and_predict(digits().images[3]).label == "1"
        assert server.stop() == -signal.SIGTERM  # in time


def test_a_worker_killed_while_idle_costs_nothing(server):
    with client_of(server) as client:
        assert_works(client)
        os.kill(server.worker(), signal.SIGKILL)
        time.sleep(0.5)
        assert_works(client)


def test_a_worker_that_hangs_is_replaced(tmp_path):
    with server_process(tmp_path, [TINY, LONG], evaluation_timeout=15) as server, client_of(server) as client:
        assert_works(client)
        hung = server.worker()
        with client_of(server, "long") as other, long_request(server, other) as request:
            os.kill(hung, signal.SIGSTOP)
            assert_right(request.result(SECONDS))
        assert not alive(hung)
        os.kill(server.worker(), signal.SIGSTOP)  # hangs before it takes the task
        assert_works(client)


def test_an_evaluation_that_takes_too_long_is_given_up(tmp_path):
    with server_process(tmp_path, [TINY, ENDLESS], evaluation_timeout=1) as server:
        with client_of(server, "endless") as client, pytest.raises(EvaluationTimeoutError) as caught:
            client.encrypt_and_predict(IMAGE)
        assert (caught.value.status, caught.value.server_code) == (504, "evaluation-timeout")
        with client_of(server) as client:
            assert_works(client)


def test_two_workers_work_at_the_same_time(tmp_path):
    with server_process(tmp_path, [LONG], workers=2) as server, ThreadPoolExecutor() as pool:
        assert len(server.workers()) == 2
        with client_of(server, "long") as first, client_of(server, "long") as second:
            first.prepare()
            second.prepare()
            requests = [pool.submit(client.encrypt_and_predict, IMAGE) for client in (first, second)]
            server.wait_until_busy()
            assert not any(request.done() for request in requests)
            for request in requests:
                assert_right(request.result(SECONDS))


def test_one_client_stays_with_the_worker_that_has_its_keys(tmp_path):
    owner = Owner(TINY)
    with server_process(tmp_path, [TINY], workers=2) as server, httpx.Client(base_url=server.url) as http:
        key_id = registered(http, owner.keys)
        timings = [
            http.post("/infer", params=to(key_id), content=owner.inputs(IMAGE)).headers["server-timing"]
            for _ in range(5)
        ]
    assert ["keys;dur=0.0" in timing for timing in timings] == [False, True, True, True, True]


def test_one_tenant_who_sends_slowly_leaves_others_a_place_to_register(tmp_path):
    tenants, owner = TenantFile(tmp_path / "tenants.json"), Owner(TINY)
    slow, other = ({"Authorization": f"Bearer {tenants.add(name)}"} for name in ("slow", "other"))
    with (
        server_process(tmp_path / "service", [TINY], tenants=tmp_path / "tenants.json") as server,
        ExitStack() as wires,
    ):
        url = httpx.URL(server.url)
        head = (
            f"POST /models/tiny/keys?{urlencode(of(TINY))} HTTP/1.1\r\nHost: {url.host}\r\n"
            f"Authorization: {slow['Authorization']}\r\nContent-Length: {len(owner.keys)}\r\n\r\n"
        )
        for _ in range(8):  # and no body
            wires.enter_context(socket.create_connection((url.host, url.port))).sendall(head.encode())
        time.sleep(0.5)
        with httpx.Client(base_url=server.url, headers=other) as http, ThreadPoolExecutor(8) as pool:
            began = time.monotonic()
            answers = list(
                pool.map(lambda _: http.post("/models/tiny/keys", params=of(TINY), content=owner.keys), range(8))
            )
            assert [answer.status_code for answer in answers] == [HTTPStatus.CREATED] * 8  # in turn, for two places
            assert time.monotonic() - began < REGISTRATION_SECONDS


def test_who_hangs_up_frees_the_place_of_a_stream(server):
    owner = Owner(TINY)
    with httpx.Client(base_url=server.url, timeout=SECONDS) as http, stopped(server.worker()), ExitStack() as listening:
        key_id = registered(http, owner.keys)
        job = http.post("/jobs", params=to(key_id), content=owner.inputs(IMAGE)).json()["job"]

        def listen(place: ExitStack) -> int:
            events = place.enter_context(httpx.stream("GET", f"{server.url}/jobs/{job}/events", timeout=SECONDS))
            return events.status_code

        hanging_up = ExitStack()
        assert listen(hanging_up) == HTTPStatus.OK
        others = [listen(listening) for _ in range(STREAMS_OF_A_TENANT)]
        assert others == [*([HTTPStatus.OK] * (STREAMS_OF_A_TENANT - 1)), HTTPStatus.TOO_MANY_REQUESTS]
        hanging_up.close()
        wait_until(lambda: listen(listening) == HTTPStatus.OK, 10)
        assert http.get(f"/jobs/{job}").json()["state"] in ("waiting", "running")


def test_a_port_that_is_taken_ends_it_with_its_workers(server, tmp_path):
    port = httpx.URL(server.url).port
    process = launch(tmp_path, [TINY], port=port)
    assert process.wait(30) != 0
    assert process.stdout.read() == ""
    process.stdout.close()
    assert "(Address already in use): set HEINFER_SERVER_PORT" in (tmp_path / "log").read_text()


# Ends ------------------------------------------------------------------------------------------


def files_in(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def in_use() -> set[str]:
    """Shared memory that a living process has: of others, who test or serve on this machine at the same time."""
    found: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            found |= set(re.findall(r"/dev/shm/\S+", maps.read_text()))
    return found


def assert_nothing_is_left(server: ServerProcess, children: set[int], folder: Path, shared: set[str]) -> None:
    wait_until(lambda: not any(alive(pid) for pid in children), 10)
    assert files_in(folder / "tmp") == set()
    assert files_in(Path("/dev/shm")) - shared - in_use() == set()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_sigterm_leaves_no_process_and_no_file(tmp_path):
    shared = files_in(Path("/dev/shm"))
    with server_process(tmp_path, [TINY], workers=2) as server:
        with client_of(server) as client:
            assert_works(client)
        before = files_in(tmp_path)
        children = server.children()
        assert len(children) >= 2
        server.stop()
        assert_nothing_is_left(server, children, tmp_path, shared)
        assert files_in(tmp_path) == before == {str(tmp_path / name) for name in ("tmp", "log", "tiny.heinfer")}


def test_sigterm_lets_a_request_finish(tmp_path):
    shared = files_in(Path("/dev/shm"))
    with (
        server_process(tmp_path, [LONG], drain_seconds=SECONDS) as server,
        client_of(server, "long") as client,
        ThreadPoolExecutor() as pool,
    ):
        client.prepare()
        children = server.children()
        request = pool.submit(client.encrypt_and_predict, IMAGE)
        server.wait_until_busy()
        assert not request.done()
        server.stop(SECONDS)
        assert_right(request.result(SECONDS))
        assert_nothing_is_left(server, children, tmp_path, shared)


def test_sigterm_does_not_wait_for_ever(tmp_path):
    shared = files_in(Path("/dev/shm"))
    with (
        server_process(tmp_path, [ENDLESS]) as server,
        client_of(server, "endless") as client,
        ThreadPoolExecutor() as pool,
    ):
        client.prepare()
        children = server.children()
        request = pool.submit(client.encrypt_and_predict, IMAGE)
        server.wait_until_busy()
        os.kill(server.worker(), signal.SIGSTOP)  # it takes for ever, on any machine
        server.stop()
        assert request.exception(SECONDS) is not None
        assert_nothing_is_left(server, children, tmp_path, shared)


def test_a_request_that_outlasts_the_end_is_told_to_come_again(tmp_path):
    owner = Owner(ENDLESS)
    with (
        server_process(tmp_path, [ENDLESS], drain_seconds=1) as server,
        httpx.Client(base_url=server.url, timeout=SECONDS) as http,
        ThreadPoolExecutor() as pool,
    ):
        key_id = registered(http, owner.keys, ENDLESS)
        request = pool.submit(infer, http, key_id, owner.inputs(IMAGE), ENDLESS)
        server.wait_until_busy()
        os.kill(server.worker(), signal.SIGSTOP)
        server.stop()
        answer = request.result(SECONDS)
        assert (answer.status_code, answer.json()["code"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "not-ready")
        assert "Exception in ASGI" not in server.log


@pytest.mark.parametrize("hangs", [False, True])
def test_workers_do_not_outlive_a_server_that_is_killed(tmp_path, hangs):
    with server_process(tmp_path, [TINY]) as server:
        children = server.children()
        if hangs:
            os.kill(server.worker(), signal.SIGSTOP)
        server.process.kill()
        server.process.wait(30)
        wait_until(lambda: not any(alive(pid) for pid in children), 10)

"""What a client tries again, when, how often, and out of which budget."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import URL, Recorded, running_service
from tiny_model import cleartext_scores, tiny_bundle

from heinfer.errors import (
    BusyError,
    DeadlineError,
    EvaluationTimeoutError,
    ServiceError,
    ServiceUnavailableError,
    UnknownJobError,
    UnknownKeysError,
    UnknownUploadError,
    WorkerFailedError,
)
from heinfer_client import AsyncClient, Client, budget, jobs, retries, upload
from heinfer_client.blocking_connections import at_once
from heinfer_client.budget import Budget
from heinfer_client.messages import Reply, Request
from heinfer_client.retries import Tries

MODEL = tiny_bundle()
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
PAGE = b"<html><head><title>502 Bad Gateway</title></head></html>"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL]) as service:
        yield service


@pytest.fixture
def in_haste(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": "so it is"}, headers=headers)


def page(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, content=PAGE, headers={"Content-Type": "text/html", **headers})


class Instead(Recorded):
    """Gives other answers in place of those to some requests, by their number, and loses those that are None."""

    def __init__(self, inner: httpx.BaseTransport, answers: dict[int, httpx.Response | None]) -> None:
        super().__init__(inner)
        self.answers = answers

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        number = len(self.requests)
        if number not in self.answers:
            return answer
        instead = self.answers[number]
        if instead is None:
            raise httpx.ReadError("lost")
        return httpx.Response(instead.status_code, headers=instead.headers, content=instead.content)


def assert_right(client: Client) -> None:
    assert client.encrypt_and_predict(IMAGE).scores == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


# What is tried again ---------------------------------------------------------------------------

PASSING = [
    page(502),
    page(503),
    page(504),
    page(429),
    page(408),
    httpx.Response(503, content=b"upstream connect error or disconnect/reset before headers"),
    httpx.Response(503, json={"message": "Service Unavailable"}),
    httpx.Response(503, json={"code": 503, "detail": "no healthy upstream"}),
    httpx.Response(502, json={"code": "BAD_GATEWAY"}),
    httpx.Response(504, content=b""),
    problem(503, "service-unavailable"),
    problem(429, "busy"),
    problem(429, "rate-limited"),
    problem(408, "request-timeout"),
    None,
]


@pytest.mark.parametrize("number", range(1, 4))
@pytest.mark.parametrize("answer", PASSING)
def test_what_passes_is_waited_for_whatever_was_asked(running, in_haste, answer, number):
    """Request 1 is for the manifest, 2 registers the keys, 3 infers."""
    transport = Instead(running.transport, {number: answer, number + 1: answer})
    with Client(URL, model="tiny", transport=transport) as client:
        assert_right(client)
        assert len(transport.requests) == 5
    assert len({request.url for request in transport.requests[number - 1 : number + 2]}) == 1


@pytest.mark.parametrize("number", range(1, 12))
@pytest.mark.parametrize("answer", [page(502), problem(503, "service-unavailable"), None])
def test_uploads_and_jobs_go_on_where_they_were(running, in_haste, monkeypatch, answer, number):
    monkeypatch.setattr(upload, "WHOLE_BYTES", 50_000)
    monkeypatch.setattr(upload, "PIECE_BYTES", 50_000)
    monkeypatch.setattr("heinfer_client.session.LONG_SECONDS", -1.0)
    monkeypatch.setattr(jobs, "_FIRST_LOOK", 0.01)
    transport = Instead(running.transport, {number: answer})
    with Client(URL, model="tiny", transport=transport) as client:
        assert_right(client)
        pieces = [int(request.url.params["offset"]) for request in transport.requests if request.method == "PATCH"]
        assert pieces == list(range(0, client.key_bytes, 50_000))
    begun = {request.headers["idempotency-key"] for request in transport.requests if request.url.path == "/jobs"}
    assert len(begun) == 1


def test_the_asynchronous_twin_waits_as_well(running, in_haste):
    class Lossy(httpx.AsyncBaseTransport):
        def __init__(self) -> None:
            self.inner = httpx.ASGITransport(running.app)
            self.number = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.number += 1
            answer = await self.inner.handle_async_request(request)
            return answer if self.number % 2 == 0 else page(502)

    async def use() -> np.ndarray:
        async with AsyncClient(URL, model="tiny", transport=Lossy()) as client:
            return (await client.encrypt_and_predict(IMAGE)).scores

    assert running.portal.call(use) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(503, "worker-failed"), WorkerFailedError),
        (problem(504, "evaluation-timeout"), EvaluationTimeoutError),
        (problem(504, "deadline-exceeded"), DeadlineError),
        (problem(500, "internal-error"), ServiceError),
        (problem(507, "storage-failed"), ServiceError),
        (problem(400, "parameter-mismatch"), ServiceError),
        (httpx.Response(503, json={"code": "new", "type": "urn:heinfer:problem:new"}), ServiceError),
        (page(500), ServiceError),
        (page(501), ServiceError),
        (page(400), ServiceError),
        (page(403), ServiceError),
        (page(413), ServiceError),
    ],
)
def test_what_would_be_the_same_the_next_time_is_told_at_once(running, answer, error):
    transport = Instead(running.transport, {3: answer})
    with Client(URL, model="tiny", transport=transport) as client:
        with pytest.raises(error) as caught:
            client.encrypt_and_predict(IMAGE)
        assert type(caught.value) is error
        assert len(transport.requests) == 3


@pytest.mark.parametrize("answer", [page(502), problem(503, "service-unavailable"), None])
def test_what_does_not_pass_is_given_up_and_counted(running, in_haste, answer):
    transport = Instead(running.transport, dict.fromkeys(range(3, 100), answer))
    with (
        Client(URL, model="tiny", transport=transport) as client,
        pytest.raises(ServiceUnavailableError, match=f"given up after {retries.TRIES} tries"),
    ):
        client.encrypt_and_predict(IMAGE)
    assert transport.count("/infer") == retries.TRIES


@pytest.mark.usefixtures("in_haste")
def test_an_address_at_which_nothing_has_ever_answered_is_given_up_sooner(running):
    transport = Instead(running.transport, dict.fromkeys(range(1, 100)))
    with (
        Client(URL, model="tiny", transport=transport) as client,
        pytest.raises(ServiceUnavailableError, match=f"given up after {retries.FIRST_TRIES} tries"),
    ):
        client.prepare()
    assert len(transport.requests) == retries.FIRST_TRIES


# When ------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retries, "monotonic", clock)
    return clock


BUSY = Reply(429, json.dumps({"code": "busy", "detail": "full"}).encode(), retry_after="3")
GOOD = Reply(200, b"")


class Scripted:
    """Connections that give replies one after the other, and by whose clock nothing but pauses takes time."""

    def __init__(self, timeout: float, bucket: Budget, replies: list[Reply], clock: Clock) -> None:
        self.timeout = timeout
        self.budget = bucket
        self.pauses: list[float] = []
        self._replies = iter(replies)
        self._clock = clock

    async def send(self, _request: Request) -> Reply:
        return next(self._replies)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._clock.now += seconds


def asked(
    seconds: float, replies: list[Reply], clock: Clock, bucket: Budget | None = None
) -> tuple[Reply | None, list[float]]:
    """The reply that is got in the end, None when it is given up, and the pauses that are made."""
    connections = Scripted(seconds, bucket or Budget(clock), replies, clock)
    try:
        return at_once(Tries(connections).ask(Request("GET", "/"))), connections.pauses
    except ServiceUnavailableError:
        return None, connections.pauses


@pytest.mark.parametrize("refusal", [BUSY, Reply(503, PAGE, retry_after="3"), Reply(429, PAGE, retry_after="3")])
def test_the_client_comes_back_when_it_is_told_to(clock, refusal):
    reply, pauses = asked(60, [refusal, refusal, GOOD], clock)
    assert reply is GOOD
    assert all(3 <= pause <= 3 + retries.LONGEST_PAUSE / 2 for pause in pauses)
    assert len(set(pauses)) == 2


def test_a_date_to_come_back_at_is_kept(clock):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    _, (pause,) = asked(60, [Reply(503, PAGE, retry_after=date), GOOD], clock)
    assert 15 < pause < 25


@pytest.mark.parametrize("header", ["", "soon", "-1", "1e9", "0", "9" * 30, "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_header_that_makes_no_sense_is_waited_for_as_none(clock, header):
    _, pauses = asked(60, [Reply(429, b"", retry_after=header), GOOD], clock)
    assert retries.FIRST_PAUSE / 2 <= pauses[0] <= retries.FIRST_PAUSE


def test_the_client_gives_up_before_its_time_is_over(clock):
    began = clock.now
    reply, pauses = asked(10, [BUSY] * 9, clock)
    assert reply is None
    assert len(pauses) in (2, 3)
    assert clock.now - began < 10


@pytest.mark.parametrize("header", ["3600", "999999"])
def test_who_is_put_off_beyond_its_time_hears_it_at_once(clock, header):
    assert asked(60, [Reply(503, PAGE, retry_after=header)], clock) == (None, [])


def test_a_busy_service_is_waited_for_as_long_as_there_is_time(clock):
    reply, pauses = asked(900, [BUSY] * 60 + [GOOD], clock)
    assert reply is GOOD
    assert len(pauses) == 60


@given(st.integers(0, 10_000), st.none() | st.floats(0, 1e6))
def test_a_pause_is_what_is_wanted_and_never_much_longer(pauses, wanted):
    pause = retries.pause_before_retry(pauses, wanted)
    least = max(wanted or 0.0, min(retries.LONGEST_PAUSE, retries.FIRST_PAUSE * 2.0 ** min(pauses, 10)) / 2)
    assert least <= pause <= least + retries.LONGEST_PAUSE / 2


# Out of which budget ---------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["retry", "answer", "second"]), max_size=400))
def test_a_client_never_adds_more_than_its_budget(events):
    clock = Clock()
    bucket = Budget(clock)
    taken = answers = seconds = 0
    for event in events:
        taken += event == "retry" and bucket.take()
        answers += event == "answer"
        seconds += event == "second"
        clock.now += event == "second"
        if event == "answer":
            bucket.earn()
        earned = budget.EARNED_BY_ANSWER * answers + budget.EARNED_BY_SECOND * seconds
        assert taken <= budget.CAPACITY + earned + 1e-6


@pytest.mark.usefixtures("in_haste")
def test_a_sick_service_is_not_asked_thrice_as_much(running):
    transport = Instead(running.transport, {})
    with Client(URL, model="tiny", transport=transport) as client:
        client.prepare()
        transport.answers = dict.fromkeys(range(3, 10_000), page(503))
        texts = []
        for _ in range(100):
            with pytest.raises(ServiceUnavailableError) as caught:
                client.encrypt_and_predict(IMAGE)
            texts.append(str(caught.value))
        assert transport.count("/infer") <= 100 + budget.CAPACITY + 10
        assert "given up after" in texts[0]
        assert "too much that this client has asked of late was in vain" in texts[-1]
        transport.answers = {}
        assert_right(client)


def test_a_budget_is_shared_by_threads(clock):
    bucket = Budget(clock)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: bucket.take(), range(500))) == budget.CAPACITY


def test_a_busy_service_costs_nothing_of_it(clock, monkeypatch):
    monkeypatch.setattr(budget, "EARNED_BY_SECOND", 0.0)
    bucket = Budget(clock)
    asked(900, [BUSY] * 60 + [GOOD], clock, bucket)
    assert sum(bucket.take() for _ in range(500)) == budget.CAPACITY


# Several services that do not share keys -------------------------------------------------------


class TakesTurns(httpx.BaseTransport):
    """A balancer: each request to the next."""

    def __init__(self, *services: httpx.BaseTransport) -> None:
        self._services = services
        self.paths: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        return self._services[len(self.paths) % len(self._services)].handle_request(request)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("others"), [MODEL]) as service:
        yield service


@pytest.mark.parametrize("piece", [1 << 30, 50_000])
def test_several_services_that_do_not_share_keys_are_told(running, other, monkeypatch, piece):
    monkeypatch.setattr(upload, "WHOLE_BYTES", piece)
    monkeypatch.setattr(upload, "PIECE_BYTES", piece)
    transport = TakesTurns(running.transport, other.transport)
    began = time.monotonic()
    with (
        Client(URL, model="tiny", transport=transport) as client,
        pytest.raises(UnknownKeysError, match=r"several services that do not share keys: .*sticky"),
    ):
        client.encrypt_and_predict(IMAGE)
    assert time.monotonic() - began < 10
    assert len(transport.paths) < 25
    for service in (running, other):  # or the ids, which are of the bytes, would be known for the next test
        service.portal.call(service.service.uploads._uploads.clear)


def test_pieces_that_get_lost_to_another_service_go_at_once(running, other, monkeypatch):
    monkeypatch.setattr(upload, "WHOLE_BYTES", 50_000)
    monkeypatch.setattr(upload, "PIECE_BYTES", 50_000)

    class Pieces(TakesTurns):
        """Only what uploads in pieces is sent to both."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if "uploads" in request.url.path:
                return super().handle_request(request)
            self.paths.append(request.url.path)
            return running.transport.handle_request(request)

    transport = Pieces(running.transport, other.transport)
    with Client(URL, model="tiny", transport=transport) as client:
        assert_right(client)
    assert sum(path.endswith("/keys") for path in transport.paths) == 1


def test_what_cannot_go_at_once_either_says_why(running, in_haste, monkeypatch):
    monkeypatch.setattr(upload, "WHOLE_BYTES", 50_000)

    class Loses(Recorded):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "PATCH":
                return problem(404, "unknown-upload")
            return page(413) if request.url.path.endswith("/keys") else super().handle_request(request)

    with (
        Client(URL, model="tiny", transport=Loses(running.transport)) as client,
        pytest.raises(UnknownUploadError, match=r"several services that do not share uploads and keys: .*sticky"),
    ):
        client.prepare()


def test_a_job_that_is_unknown_again_and_again_says_why(running, in_haste, monkeypatch):
    monkeypatch.setattr("heinfer_client.session.LONG_SECONDS", -1.0)
    monkeypatch.setattr(jobs, "_FIRST_LOOK", 0.01)

    class Loses(Recorded):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            return problem(404, "unknown-job") if request.url.path.startswith("/jobs/") else answer

    transport = Loses(running.transport)
    with (
        Client(URL, model="tiny", transport=transport) as client,
        pytest.raises(UnknownJobError, match=r"several services that do not share jobs: .*sticky"),
    ):
        client.encrypt_and_predict(IMAGE)
    assert transport.count("/jobs") == 3


def test_keys_that_are_dropped_once_are_no_sign_of_it(running):
    transport = Instead(running.transport, {3: problem(404, "unknown-keys")})
    with Client(URL, model="tiny", transport=transport) as client:
        assert_right(client)


def test_two_tasks_whose_keys_are_dropped_register_them_once(running):
    paths = []

    class Noted(httpx.AsyncBaseTransport):
        inner = httpx.ASGITransport(running.app)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            paths.append(request.url.path)
            if paths.count("/infer") in range(1, 4) and request.url.path == "/infer":
                await asyncio.sleep(0.1)
                return problem(404, "unknown-keys")
            return await self.inner.handle_async_request(request)

    async def use() -> None:
        async with AsyncClient(URL, model="tiny", transport=Noted()) as client:
            await client.prepare()
            await asyncio.gather(*(client.encrypt_and_predict(IMAGE) for _ in range(3)))

    running.portal.call(use)
    assert sum(path.endswith("/keys") for path in paths) == 2


def test_a_busy_error_has_its_place_in_the_tree():
    error = BusyError("full", status=429, retry_after=3.0)
    assert isinstance(error, ServiceUnavailableError)
    assert (error.retry_after, ServiceUnavailableError("gone").retry_after) == (3.0, None)

"""The port that Prometheus asks: what it answers, and its bounds."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import running_service
from tiny_model import tiny_bundle

from heinfer.errors import SettingError
from heinfer_server.telemetry import metrics
from heinfer_server.telemetry.metrics import Metrics
from heinfer_server.web import descriptors
from heinfer_server.web.descriptors import LEAST_CONNECTIONS, share_out
from heinfer_server.web.metrics_port import MOST_CONNECTIONS, MetricsPort

SECONDS = 10.0


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [tiny_bundle()], metrics_port=0) as service:
        yield f"http://127.0.0.1:{service.app.state.metrics_port}"


def test_only_metrics_are_there_to_get(url):
    answer = httpx.get(f"{url}/metrics", timeout=SECONDS)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    assert "heinfer_workers_ready 1.0" in answer.text
    for path in ("/", "/metrics/", "/readyz", "/%2e/metrics", "/openapi.json"):
        answer = httpx.get(f"{url}{path}", timeout=SECONDS)
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    for method in ("POST", "PUT", "OPTIONS", "INVENTED"):
        refused = httpx.request(method, f"{url}/metrics", timeout=SECONDS)
        assert (refused.status_code, refused.json()["code"]) == (405, "method-not-allowed")
        assert refused.headers["allow"] == "GET"


def test_there_are_only_so_many_connections_and_the_longest_idle_goes(url):
    port = httpx.URL(url).port
    with ExitStack() as stack:
        first = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        for _ in range(MOST_CONNECTIONS + 10):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        first.settimeout(SECONDS)
        assert first.recv(1) == b""
        assert httpx.get(f"{url}/metrics", timeout=SECONDS).status_code == 200


def test_who_asks_while_the_text_is_made_gets_the_same(monkeypatch):
    made = []

    def make(registry):
        made.append(threading.get_ident())
        return f"text {len(made)}".encode()

    monkeypatch.setattr(metrics, "generate_latest", make)

    async def use() -> list[bytes]:
        all_of_them = Metrics()
        first = await all_of_them.text()
        return [first, *await asyncio.gather(*(all_of_them.text() for _ in range(50)))]

    assert asyncio.run(use()) == [b"text 1", *[b"text 2"] * 50]
    assert threading.get_ident() not in made  # the event loop has better to do


def test_many_scrapes_at_once_are_answered(url):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: httpx.get(f"{url}/metrics", timeout=SECONDS).status_code, range(24)))
    assert answers == [200] * 24


def test_an_address_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=rf"port {port} \(Address already in use\)"):
            MetricsPort(Metrics(), "127.0.0.1", port)
    with pytest.raises(SettingError, match="HEINFER_SERVER_METRICS_HOST"):
        MetricsPort(Metrics(), "no host", 0)


@given(st.integers(1, 1 << 17), st.integers(1, 256), st.integers(1, 4), st.booleans())
def test_files_are_shared_out_so_that_none_is_short(files, workers, listeners, with_metrics):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(descriptors, "_limit", lambda: files)
        try:
            shared = share_out(workers, listeners, with_metrics)
        except SettingError:
            assert files < descriptors.SERVICE_FILES + 8 * workers + 48 + 2 * listeners * 64 + 2 * LEAST_CONNECTIONS
            return
        needed = descriptors.SERVICE_FILES + 8 * workers + 48 * with_metrics
        assert shared.connections >= LEAST_CONNECTIONS
        assert 1 <= shared.backlog <= descriptors.MOST_BACKLOG
        assert shared.connections + 2 * listeners * shared.backlog + needed <= files

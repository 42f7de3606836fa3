"""Files that the process may open: connections to no port, however many, take those that the service needs."""

import os
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from server_process import ServerProcess, launch, server_process, wait_until
from tiny_model import cleartext_scores, tiny_bundle

from heinfer_client import Client

pytestmark = pytest.mark.slow

SECONDS = 10.0
TOLERANCE = 0.3
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
TINY = tiny_bundle()


@contextmanager
def limited_to(files: int) -> Iterator[None]:
    """Processes that are started meanwhile may open so many files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def metrics_port(server: ServerProcess) -> int:
    return int(re.search(r'"metrics served".*"port": ?(\d+)', server.log)[1])


def open_files(server: ServerProcess) -> int:
    return sum(1 for _ in Path(f"/proc/{server.process.pid}/fd").iterdir())


def half_open(port: int, stack: ExitStack) -> None:
    """Hold a connection that sends half a head, or try to."""
    with suppress(OSError):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHo")


@pytest.mark.parametrize("both", [False, True], ids=["metrics", "both"])
def test_half_open_connections_leave_the_service_what_it_needs(tmp_path, both):
    files = 512
    with limited_to(files), server_process(tmp_path, [TINY], metrics_port=0, key_folder=tmp_path / "keys") as server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        public = httpx.URL(server.url).port
        with ExitStack() as stack:
            for _ in range(600):
                half_open(metrics_port(server), stack)
                if both:
                    half_open(public, stack)
            assert open_files(server) < files - 64
            assert httpx.get(f"{server.url}/readyz", timeout=SECONDS).status_code == 200
            answer = httpx.get(f"http://127.0.0.1:{metrics_port(server)}/metrics", timeout=SECONDS)
            assert "heinfer_workers 1.0" in answer.text  # whoever is idle longest goes
            os.kill(server.worker(), signal.SIGKILL)  # a new worker needs files as well
            with Client(server.url, model="tiny", progress=False) as client:
                scores = client.encrypt_and_predict(IMAGE).scores
            assert scores == pytest.approx(cleartext_scores(IMAGE), abs=TOLERANCE)
        assert "out of system resource" not in server.log
        assert len(server.log) < 20_000
        wait_until(lambda: open_files(server) < 64, SECONDS)


def test_where_too_few_files_may_be_opened_it_does_not_start(tmp_path):
    with limited_to(100), launch(tmp_path, [TINY], workers=4) as process:
        try:
            assert process.wait(60) == 2
        finally:
            process.kill()
    log = (tmp_path / "log").read_text()
    assert "this process may open 100 files: 4 workers" in log
    assert "LimitNOFILE" in log
    assert "Traceback" not in log


def test_where_the_limit_falls_below_all_of_it_the_log_stays_short(tmp_path):
    """Nobody should do that; but what the event loop says of it was a megabyte a second."""
    with server_process(tmp_path, [TINY]) as server:
        port = httpx.URL(server.url).port
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (open_files(server), 4096))
        before = Path(tmp_path / "log").stat().st_size
        with ExitStack() as stack:
            for _ in range(30):
                with suppress(OSError):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
            time.sleep(15)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (512, 4096))
        assert httpx.get(f"{server.url}/healthz", timeout=SECONDS).status_code == 200  # it comes back by itself
        assert Path(tmp_path / "log").stat().st_size - before < 50_000

"""Restarts and replacements under calls, few of each: nothing wrong, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from benchmarks.soak.survive import proxy
from benchmarks.soak.survive.caller import WAYS
from benchmarks.soak.survive.command import LIVES
from benchmarks.support.ports import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECONDS = 400.0
AT_ONCE = 16


def command(file: Path) -> list[str]:
    counts = ["--predictions", "150", "--restarts", str(len(LIVES)), "--at-once", str(AT_ONCE)]
    return [sys.executable, "-m", "benchmarks", "survive", "--json", str(file), *counts]


def test_answers_are_right_and_none_is_lost_whatever_becomes_of_the_service(tmp_path):
    file = tmp_path / "survive.json"
    run = subprocess.run(command(file), cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (record,) = json.loads(file.read_text())
    assert record["right"] >= 150
    assert (
        record["wrong"] == record["mixed_up"] == record["lost"] == record["untyped_errors"] == record["lost_keys"] == 0
    )
    assert record["registrations"] == len(WAYS)
    assert record["right_by_client"].keys() == WAYS.keys()
    assert all(record["right_by_client"].values())
    assert all(record["right_by_version"].values())
    assert 0 < record["under_way_at_restarts"]["max"] <= AT_ONCE


def test_an_interruption_leaves_nothing(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command(tmp_path / "record"), cwd=ROOT, env=environment, start_new_session=True) as process:
        end = time.monotonic() + SECONDS
        while not list(tmp_path.glob("*/threaded.keys.registration")):  # then all are there
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(SECONDS)
    mark = f"TMPDIR={tmp_path}".encode()
    assert not [path for path in Path("/proc").glob("[0-9]*") if mark in environment_of(path)]
    assert not list(tmp_path.iterdir())


def environment_of(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("kind", ["nginx", "forwarder"])
def test_a_proxy_passes_on_and_answers_for_who_is_away(tmp_path, monkeypatch, kind):
    if kind == "forwarder":
        monkeypatch.setattr(proxy.shutil, "which", lambda _name: None)
    elif not proxy.shutil.which(kind):
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    port, body = free_port(), bytes(1 << 20)
    with proxy.proxied(port, tmp_path / "proxy") as before, httpx.Client(base_url=before.url, timeout=30) as http:
        assert before.kind == kind
        with upstream(port):
            assert http.post("/", content=body).content == body
        answers = [http.post("/", content=body) for _ in range(30)]
        assert {answer.headers["content-type"] for answer in answers} == {"text/html"}
        assert {str(answer.status_code) for answer in answers} == set(proxy.CODES)
        assert before.answers().total() >= len(answers)
        with upstream(port):
            assert http.post("/", content=body).content == body


class Echo(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments) -> None:
        pass


@contextmanager
def upstream(port: int):
    with ThreadingHTTPServer(("127.0.0.1", port), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()

"""The log of a real service: bounded whatever is sent, and never in the way."""

import json
import os
import re
import socket
import subprocess
import sys
from threading import Thread

import httpx
import pytest
from asking import registered, to
from bundle_files import save_all
from owner import Owner
from proxy import proxied
from server_process import ServerProcess, server_process, wait_until
from tiny_model import tiny_bundle

from heinfer_server.admission.tenants import TenantFile
from heinfer_server.telemetry.logs import OUTSIDE_LINES

pytestmark = pytest.mark.slow

SECONDS = 30.0
TINY = tiny_bundle()


def flood(server: ServerProcess, head: bytes, count: int, at_once: int = 1) -> None:
    """Send a request so many times, several on a connection, and read what comes."""
    url = httpx.URL(server.url)
    for _ in range(count // at_once):
        with socket.create_connection((url.host, url.port), timeout=SECONDS) as connection:
            connection.sendall((head + b"\r\n") * (at_once - 1) + head + b"Connection: close\r\n\r\n")
            while connection.recv(1 << 16):
                pass


def lines(server: ServerProcess) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.splitlines()]


def test_a_flood_without_api_keys_leaves_a_bounded_log(tmp_path):
    key = {"Authorization": f"Bearer {TenantFile(tmp_path / 'tenants.json').add('alice')}"}
    with server_process(tmp_path, [TINY], tenants=tmp_path / "tenants.json") as server:
        count = 20_000
        flooding = Thread(target=flood, args=(server, b"GET /models HTTP/1.1\r\nHost: localhost\r\n", count, 100))
        flooding.start()
        asked = 0
        with httpx.Client(base_url=server.url, headers=key, timeout=SECONDS) as http:
            while flooding.is_alive() and asked < 200:
                assert http.get("/models").status_code == 200
                asked += 1
            flooding.join()
            flood(server, b"no request\r\n", 500)
            flood(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: x\r\n", 500)
            wait_until(lambda: '"repeated"' in server.log, SECONDS)
            assert http.get("/models").status_code == 200
        wait_until(lambda: sum(line.get("tenant") == "alice" for line in lines(server)) == asked + 1, SECONDS)
        server.stop()
        logged = lines(server)
        assert sum(len(line) for line in server.log.splitlines() if '"alice"' not in line) < 100_000  # it was 10 MB
    refused = [line for line in logged if line.get("code") == "unauthorized" and line["event"] == "request"]
    assert len(refused) >= OUTSIDE_LINES
    assert {line["peer"] for line in refused} == {"127.0.0.1"}
    left_out = sum(
        line["lines"] for line in logged if line["event"] == "repeated" and line.get("code") == "unauthorized"
    )
    assert len(refused) + left_out == count
    assert not [line for line in logged if line["event"] in ("refused", "Invalid HTTP request received.")]
    assert [line for line in logged if line["event"] == "no request" and line["peer"] == "127.0.0.1"]
    mine = [line for line in logged if line.get("tenant") == "alice"]
    assert {line["peer"] for line in mine} == {"127.0.0.1"}


@pytest.mark.parametrize("trusted", ["", "127.0.0.0/8", "10.0.0.0/8"])
def test_a_forwarded_address_is_believed_from_trusted_proxies_alone(tmp_path, trusted):
    with server_process(tmp_path, [TINY], trusted_proxies=trusted) as server:
        httpx.get(f"{server.url}/models", headers={"X-Forwarded-For": "203.0.113.5, 192.0.2.1"}, timeout=SECONDS)
        wait_until(lambda: any(line["event"] == "request" for line in lines(server)), SECONDS)
        (line,) = [line for line in lines(server) if line["event"] == "request"]
        assert line["peer"] == ("192.0.2.1" if trusted.startswith("127") else "127.0.0.1")


def test_behind_the_documented_nginx_the_log_names_the_client(tmp_path):
    with (
        server_process(tmp_path, [TINY], trusted_proxies="127.0.0.1") as server,
        proxied(server.url) as url,
        httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), timeout=SECONDS) as http,
    ):
        assert http.get(f"{url}/models", headers={"X-Forwarded-For": "203.0.113.5"}).status_code == 200
        wait_until(lambda: any(line["event"] == "request" for line in lines(server)), SECONDS)
        (line,) = [line for line in lines(server) if line["event"] == "request"]
        assert line["peer"] == "127.0.0.2"


def test_a_log_that_nobody_reads_stops_nothing(tmp_path):
    (tmp_path / "tmp").mkdir()
    (path,) = save_all(tmp_path, [TINY])
    settings = {"BUNDLES": str(path), "NO_AUTH": "1", "PORT": "0", "WORKERS": "1"}
    environment = {**os.environ, **{f"HEINFER_SERVER_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "heinfer_server"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            url = re.search(r"http://\S+", process.stdout.readline())[0]
            owner = Owner(TINY)
            with httpx.Client(base_url=url, timeout=SECONDS) as http:
                for _ in range(1_000):  # of some 250 bytes each, and a pipe holds 64 KiB
                    assert http.get("/models").status_code == 200
                key_id = registered(http, owner.keys)
                assert http.post("/infer", params=to(key_id), content=b"").status_code == 400
            process.terminate()
            assert process.wait(SECONDS) == -15
        finally:
            process.kill()

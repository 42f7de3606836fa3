"""Behind a real nginx and a real Caddy, with the configurations of deploy/: the client, addresses, and events."""

import json
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from asking import of, to
from owner import Owner
from proxy import Certificate, behind_caddy, proxied
from server_process import ServerProcess, server_process, stopped, wait_until
from tiny_model import LABELS, cleartext_scores, tiny_bundle

from heinfer_client import Client
from heinfer_server.evaluation.jobs import QUIET_SECONDS

pytestmark = pytest.mark.slow

MODEL = tiny_bundle()
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
PREFIX = "/he"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_process(tmp_path_factory.mktemp("service"), [MODEL], root_path=PREFIX) as running:
        yield running


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


def addresses(http: httpx.Client, owner: Owner) -> list[str]:
    """Every address that answers have, got by doing everything once."""
    listed = http.get("models").json()["models"][0]["manifest"]
    registered = http.post("models/tiny/keys", params=of(MODEL), content=owner.keys)
    begun = http.post("jobs", params=to(registered.json()["keys"], MODEL), content=owner.inputs(IMAGE))
    assert begun.status_code == 202
    (address,) = (entry["url"] for entry in http.get("openapi.json").json()["servers"])
    return [listed, registered.headers["location"], begun.headers["location"], f"{address}/readyz"]


@pytest.mark.parametrize("way", ["the prefix taken off", "the prefix left", "no proxy"])
def test_addresses_in_answers_are_those_of_the_proxy(server, owner, way):
    if way == "no proxy":
        with httpx.Client(base_url=server.url) as http:
            found = addresses(http, owner)
        assert all(address.startswith(f"{PREFIX}/") for address in found)
        return
    prefix = PREFIX if way == "the prefix taken off" else ""  # nginx that passes on everything leaves it
    with proxied(server.url, prefix) as url, httpx.Client(base_url=url.removesuffix(PREFIX) + PREFIX) as http:
        for address in addresses(http, owner):
            answer = httpx.get(f"{url.removesuffix(PREFIX)}{address}")
            assert answer.status_code == (405 if "/keys/" in address else 200), address


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("proxy", [proxied, behind_caddy])
def test_the_client_works_as_without(server, proxy, prefix, monkeypatch):
    monkeypatch.setattr("heinfer_client.upload.WHOLE_BYTES", 0)  # in pieces as well
    with proxy(server.url, prefix) as url, Client(url, model="tiny") as client:
        assert client.encrypt_and_predict(IMAGE).label == LABELS[int(cleartext_scores(IMAGE).argmax())]


@pytest.mark.parametrize("proxy", [proxied, behind_caddy])
def test_events_come_when_they_happen_and_a_sign_of_life_while_nothing_does(server: ServerProcess, proxy, owner):
    with proxy(server.url, PREFIX) as url, httpx.Client(base_url=url, timeout=2 * QUIET_SECONDS) as http:
        keys = http.post("models/tiny/keys", params=of(MODEL), content=owner.keys).json()["keys"]
        with stopped(server.worker()):
            job = http.post("jobs", params=to(keys, MODEL), content=owner.inputs(IMAGE)).json()["job"]
            began = time.monotonic()
            with http.stream("GET", f"jobs/{job}/events") as answer:
                lines = filter(None, answer.iter_lines())
                assert next(lines) == "event: progress"
                assert json.loads(next(lines).removeprefix("data: "))["state"] in ("waiting", "running")
                assert time.monotonic() - began < QUIET_SECONDS / 3
                assert next(line for line in lines if not line.startswith(("event", "data"))) == ": nothing new"
                assert time.monotonic() - began < QUIET_SECONDS * 1.5
        wait_until(lambda: http.get(f"jobs/{job}").json()["state"] == "done", 60)


def test_the_documented_configuration_speaks_tls(server, tmp_path: Path):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed, which makes the certificate")
    made = Certificate(tmp_path / "certificate.pem", tmp_path / "key.pem")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-out", str(made.certificate), "-keyout", str(made.key)]
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    subprocess.run([*words, *names, *files], check=True, capture_output=True)
    trust = ssl.create_default_context(cafile=made.certificate)
    with proxied(server.url, PREFIX, made) as url, httpx.Client(verify=trust) as http:
        assert http.get(f"{url}/readyz").json() == {"status": "ready"}

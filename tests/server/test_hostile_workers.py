"""Hostile code in a worker of a real service: what it tries fails, or ends that worker alone."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from asking import infer, registered, to
from installed import INSTALLED
from owner import Owner
from server_process import ServerProcess, alive, server_process, wait_until
from tiny_model import cleartext_scores, tiny_bundle

from benchmarks.soak.hostile import ENDS, FAILS, Place, marked, put
from benchmarks.support.ports import free_port
from heinfer_server.isolation.confinement import PARTS, available_parts

pytestmark = pytest.mark.slow

if available_parts() != PARTS.keys():
    pytest.skip("this kernel cannot isolate a worker", allow_module_level=True)

MODEL = tiny_bundle()
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
SECONDS = 60.0
FRONT_BYTES = 200 << 20
"""More than the service may grow by, whatever a worker sends it."""

REFUSED = {"EPERM", "EACCES", "ENOSYS", "EFBIG", "ENOMEM", "MemoryError", "ValueError"}


class Attacked:
    """A service of two workers with hostile code in both, a client who wakes it, and one who does not know of it."""

    def __init__(self, server: ServerProcess, folder: Path, owner: Owner) -> None:
        self.server, self.folder, self.owner = server, folder, owner
        self.http = httpx.Client(base_url=server.url, timeout=SECONDS)
        self.key_id = registered(self.http, owner.keys)
        self.victim = Owner(MODEL)
        self.victims_id = registered(self.http, self.victim.keys)

    def body(self, attack: str) -> bytes:
        """Inputs that say what to try."""
        return marked(MODEL, self.owner.inputs(IMAGE), attack, self.server.process.pid, self.server.workers())

    def strike(self, attack: str, way: str = "/infer") -> httpx.Response:
        """Have a worker try something, on the front and on the other worker where it is about others."""
        return self.http.post(way, params=to(self.key_id), content=self.body(attack))

    def assert_well(self) -> None:
        """The service is the same process, its workers answer, and all answers are right."""
        assert alive(self.server.process.pid)
        bodies = [self.victim.inputs(IMAGE) for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda body: infer(self.http, self.victims_id, body), bodies))
        for answer in answers:
            assert answer.status_code == 200, answer.text
            assert self.victim.scores(answer.content) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)
        wait_until(lambda: len(self.server.workers()) == 2 and self.http.get("/readyz").is_success, SECONDS)

    def peak_bytes(self) -> int:
        """The most memory that the front has taken."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10


@pytest.fixture(scope="module", params=INSTALLED)
def attacked(request, tmp_path_factory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "constants").mkdir()
    (folder / "tenants").write_text("{}")
    owner, port, metrics_port = Owner(MODEL), free_port(), free_port()
    with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
        listener.bind("\0heinfer-" + os.urandom(8).hex())
        listener.listen()
        place = Place(
            folder=folder,
            tenants=folder / "tenants",
            keys=folder / "keys",
            constants=folder / "constants",
            bundle=folder / "server" / "tiny.heinfer",
            port=port,
            metrics_port=metrics_port,
            abstract=listener.getsockname().decode(),
            inputs=owner.inputs(IMAGE),
        )
        patch.setenv("PYTHONPATH", os.pathsep.join([str(put(place)), os.environ.get("PYTHONPATH", "")]))
        settings = {
            "workers": 2,
            "port": port,
            "backend": request.param,
            "metrics_port": metrics_port,
            "key_folder": folder / "keys",
            "constants_folder": folder / "constants",
            "loaded_key_memory": "16MiB",
            "evaluation_timeout": 20,
        }
        with server_process(folder / "server", [MODEL], **settings) as server:
            attacked = Attacked(server, folder, owner)
            with closing(attacked.http):
                yield attacked


def outcomes(told: str) -> dict[str, str]:
    """What became of each attempt, by its name."""
    return dict(attempt.split(" ") for attempt in told.split("; "))


@pytest.mark.parametrize("attack", FAILS)
def test_what_it_tries_fails(attacked, attack):
    answer = attacked.strike(attack)
    told = answer.json()["detail"].split(" ", 1)[1]
    found = outcomes(told)
    assert len(found) > 3
    assert REFUSED.issuperset(found.values()), told
    attacked.assert_well()


def test_it_has_nothing_open_but_its_own_socket(attacked):
    told = attacked.strike("descriptors").json()["detail"].split(" ", 1)[1]
    assert outcomes(told) == {"open": "4", "accepting": "0"}


@pytest.mark.parametrize("attack", ENDS)
def test_what_is_no_answer_ends_the_worker_alone(attacked, attack):
    before, workers = attacked.peak_bytes(), attacked.server.workers()
    answer = attacked.strike(attack)
    assert (answer.status_code, answer.json()["code"]) == (503, "worker-failed")
    assert attacked.peak_bytes() - before < FRONT_BYTES
    attacked.assert_well()
    assert attacked.server.workers() != workers
    assert not (attacked.folder / "unpickled").exists()


def test_who_answers_twice_answers_once(attacked):
    answer = attacked.strike("twice")
    assert answer.status_code == 200
    time.sleep(0.5)
    attacked.assert_well()
    assert "it answered what nobody had asked" in attacked.server.log


def test_what_it_prints_is_no_line_of_the_log_and_bounded(attacked):
    before = len(attacked.server.log)
    assert attacked.strike("prints").status_code == 503
    added = attacked.server.log[before:]
    assert len(added) < 50_000
    events = [json.loads(line)["event"] for line in added.splitlines()]
    assert "told to end" not in events
    (reason, *_) = [json.loads(line)["reason"] for line in added.splitlines() if '"worker failed"' in line]
    assert "it printed" in reason
    attacked.assert_well()


def test_nonsense_for_progress_is_within_its_bounds(attacked):
    job = attacked.strike("cell", "/jobs").json()["job"]
    seen = set()
    while (state := attacked.http.get(f"/jobs/{job}").json())["state"] in ("waiting", "running"):
        seen.add(state["progress"])
        time.sleep(0.05)
    assert all(0 <= progress <= 1 for progress in seen)
    assert 1 in seen  # what it wrote was read
    attacked.assert_well()


def test_constants_that_all_map_cannot_be_changed(attacked):
    files = list((attacked.folder / "constants").iterdir())
    if not files:
        pytest.skip("SEAL keeps no constants")
    before = [file.read_bytes() for file in files]
    told = attacked.strike("constants").json()["detail"].split(" ", 1)[1]
    assert "done" not in outcomes(told).values(), told
    assert [file.read_bytes() for file in files] == before
    attacked.assert_well()

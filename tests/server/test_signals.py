"""Signals while the service starts, serves and ends, and what its supervisor hears, with real processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from server_process import ServerProcess, alive, children_of, launch, server_process, stopped, wait_until, workers_of
from tiny_model import tiny_bundle

from heinfer.zoo import bundle_path
from heinfer_server.admission.tenants import TenantFile

pytestmark = pytest.mark.slow

TINY = tiny_bundle()
SECONDS = 60.0
PROMPTLY = 5.0  # on a busy machine; what would be waited for otherwise takes for ever
"""To end, or to hear of a change."""


class Notices:
    """A supervisor that listens as systemd does, at a path or at an abstract name."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[list[str]] = []

    def has(self, line: str) -> bool:
        """Whether a line has come, that may be a pattern."""
        self._socket.setblocking(False)
        try:
            while True:
                self.heard.append(self._socket.recv(4096).decode().split("\n"))
        except BlockingIOError:
            pass
        return any(re.fullmatch(line, one) for lines in self.heard for one in lines)

    def wait_for(self, line: str, seconds: float = SECONDS) -> None:
        wait_until(lambda: self.has(line), seconds)

    def forget(self) -> None:
        self.has("")
        self.heard.clear()

    def close(self) -> None:
        self._socket.close()


@contextmanager
def listening(monkeypatch: pytest.MonkeyPatch, address: str) -> Iterator[Notices]:
    notices = Notices(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    try:
        yield notices
    finally:
        notices.close()


@pytest.fixture
def notices(monkeypatch, tmp_path) -> Iterator[Notices]:
    with listening(monkeypatch, str(tmp_path / "notify")) as notices:
        yield notices


@contextmanager
def starting(folder: Path, **settings: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service whose worker is stopped before it has loaded the model: the start takes for ever."""
    process = launch(folder, [TINY], **settings)
    try:
        wait_until(lambda: workers_of(process.pid) != set(), SECONDS)
        (worker,) = workers_of(process.pid)
        os.kill(worker, signal.SIGSTOP)
        yield process, worker
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


# While it imports ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["-m", "heinfer_server"], ["-m", "heinfer", "serve", "--no-auth", "nothing"]])
def test_a_hangup_is_ignored_before_the_start_imports_what_takes_long(words):
    """Python says on standard error what it has imported, as soon as it has."""
    command, is_sent = [sys.executable, "-v", *words], False
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "heinfer_server.beginning'" in line:
                break
        for line in process.stderr:
            if line.startswith("import 'heinfer_server.settings'"):
                process.send_signal(signal.SIGHUP)
                is_sent = True
                break
        process.stderr.read()
    assert is_sent
    assert process.returncode == 2  # there are no settings that it could serve with


def test_hangups_from_the_first_moment_on_leave_a_service_that_serves(tmp_path):
    process = launch(tmp_path, [TINY])
    sent = 0
    try:
        wait_until(lambda: ignores(process.pid, signal.SIGHUP), SECONDS)
        while not workers_of(process.pid):
            assert process.poll() is None
            process.send_signal(signal.SIGHUP)
            sent += 1
            time.sleep(0.01)
        assert sent > 3
        server = ServerProcess(process, tmp_path / "log")
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.stop() == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# While models load -----------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_while_models_load_ends_the_start(tmp_path, number, status):
    with starting(tmp_path) as (process, worker):
        time.sleep(1.0)  # the event loop waits for it
        process.send_signal(number)
        began = time.monotonic()
        assert process.wait(SECONDS) == status
        assert time.monotonic() - began < PROMPTLY
        assert process.stdout.read() == ""
        wait_until(lambda: not alive(worker), PROMPTLY)
    log = (tmp_path / "log").read_text()
    assert '"told to end"' in log
    assert "Traceback" not in log


@contextmanager
def reading(folder: Path, prefix: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service that reads so many bundles that it takes minutes, and its process id."""
    process = launch(folder, [], prefix=prefix, bundles=os.pathsep.join([str(bundle_path("mnist-ffconv"))] * 1000))

    def served_by() -> set[int]:
        found = {process.pid} if not prefix else children_of(process.pid)
        return {pid for pid in found if ignores(pid, signal.SIGHUP)}

    try:
        wait_until(lambda: served_by() != set(), SECONDS)
        yield process, served_by().pop()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ignores(pid: int, number: int) -> bool:
    """Whether a process does, as a service does as soon as it begins with anything."""
    found = re.search(r"^SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(found[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_while_bundles_are_read_ends_the_start(tmp_path, number, status):
    with reading(tmp_path) as (process, pid):
        os.kill(pid, signal.SIGHUP)
        time.sleep(0.5)
        os.kill(pid, number)
        assert process.wait(PROMPTLY) == status
        assert process.stdout.read() == ""


def test_so_it_does_as_the_first_process_of_a_container(tmp_path):
    alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may make no namespace of processes")
    with reading(tmp_path, alone) as (process, pid):
        os.kill(pid, signal.SIGTERM)
        assert process.wait(PROMPTLY) == 128 + signal.SIGTERM


def test_a_hangup_while_models_load_ends_nothing(tmp_path):
    with starting(tmp_path) as (process, worker):
        for _ in range(20):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        os.kill(worker, signal.SIGCONT)
        server = ServerProcess(process, tmp_path / "log")
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.stop() == -signal.SIGTERM


# While it serves -------------------------------------------------------------------------------


def test_a_hangup_reloads_the_tenants(tmp_path):
    tenants = TenantFile(tmp_path / "tenants.json")
    tenants.add("alice")
    with server_process(tmp_path / "service", [TINY], tenants=tmp_path / "tenants.json") as server:
        workers = server.workers()
        api_key = tenants.add("bob")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in server.log, PROMPTLY)
        assert '"tenants": "read", "takes_a_restart": "settings, models, software"' in server.log
        answer = httpx.get(f"{server.url}/models", headers={"Authorization": f"Bearer {api_key}"})
        assert answer.status_code == 200
        assert server.workers() == workers


def test_a_file_of_tenants_that_is_damaged_leaves_those_who_were_known(tmp_path):
    path = tmp_path / "tenants.json"
    api_key = TenantFile(path).add("alice")
    with server_process(tmp_path / "service", [TINY], tenants=path) as server:
        path.write_text("{")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in server.log, PROMPTLY)
        assert '"tenants": "as before"' in server.log
        assert "tenants not read" in server.log
        answer = httpx.get(f"{server.url}/models", headers={"Authorization": f"Bearer {api_key}"})
        assert answer.status_code == 200


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_workers_leave_the_signals_of_a_group_to_the_service(tmp_path, number):
    """As a terminal sends them that is closed, Ctrl-C, and timeout(1)."""
    with server_process(tmp_path, [TINY], start_new_session=True) as server:
        helpers = server.children()
        with stopped(server.process.pid):
            os.killpg(server.process.pid, number)
            time.sleep(0.5)
            assert all(alive(pid) for pid in helpers)


def test_a_worker_that_starts_leaves_the_signals_of_a_group_to_the_service(tmp_path):
    with starting(tmp_path, start_new_session=True) as (process, worker), stopped(process.pid):
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.killpg(process.pid, number)
        os.kill(worker, signal.SIGCONT)
        time.sleep(1.0)
        assert alive(worker)


# Its supervisor --------------------------------------------------------------------------------


def test_a_supervisor_hears_of_the_start_of_reloads_and_of_the_end(tmp_path, notices):
    with server_process(tmp_path / "service", [TINY], drain_seconds=3) as server:
        notices.wait_for("READY=1")
        assert notices.heard[0] == ["STATUS=loading models", "EXTEND_TIMEOUT_USEC=60000000"]
        notices.forget()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        server.process.send_signal(signal.SIGHUP)
        notices.wait_for("READY=1")
        assert notices.heard[0][0] == "RELOADING=1"
        said = int(notices.heard[0][1].removeprefix("MONOTONIC_USEC="))
        assert before < said < time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        server.stop()
        assert notices.has("STOPPING=1")
        assert ["STOPPING=1", "STATUS=ending", "EXTEND_TIMEOUT_USEC=16000000"] in notices.heard


def test_it_is_not_ready_before_models_are_loaded(tmp_path, notices):
    with starting(tmp_path / "service") as (process, worker):
        process.send_signal(signal.SIGHUP)
        time.sleep(1.0)
        assert not notices.has("READY=1|RELOADING=1")
        os.kill(worker, signal.SIGCONT)
        notices.wait_for("READY=1")


def test_a_start_that_is_ended_was_never_ready(tmp_path, notices):
    with starting(tmp_path / "service") as (process, _worker):
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
        assert notices.has("STOPPING=1")
        assert not notices.has("READY=1")


def test_a_supervisor_may_listen_at_an_abstract_name(tmp_path, monkeypatch):
    with listening(monkeypatch, f"@heinfer-test-{os.getpid()}") as notices, server_process(tmp_path, [TINY]):
        notices.wait_for("READY=1")


@pytest.mark.parametrize("address", ["/nobody/listens/here", "vsock:2:1234", "@"])
def test_a_supervisor_that_is_not_there_keeps_nobody_from_serving(tmp_path, monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with server_process(tmp_path, [TINY]) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_watchdog_hears_as_long_as_the_event_loop_goes_round(tmp_path, notices, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    with server_process(tmp_path / "service", [TINY]) as server:
        notices.wait_for("WATCHDOG=1")
        notices.forget()
        notices.wait_for("WATCHDOG=1", PROMPTLY)
        with stopped(server.process.pid):
            time.sleep(0.5)
            notices.forget()
            time.sleep(1.0)
            assert not notices.has("WATCHDOG=1")


def test_a_watchdog_of_another_process_hears_nothing(tmp_path, notices, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    with server_process(tmp_path / "service", [TINY]):
        notices.wait_for("READY=1")
        time.sleep(0.5)
        assert not notices.has("WATCHDOG=1")


def test_workers_do_not_know_where_the_supervisor_listens(tmp_path, notices, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    with server_process(tmp_path / "service", [TINY]) as server:
        environment = Path(f"/proc/{server.worker()}/environ").read_bytes()
        assert b"PYTHONPATH" in environment
        assert b"HEINFER" not in environment
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG" not in environment

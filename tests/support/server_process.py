"""The service as a process of its own, as its users start it, on a loopback address."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bundle_files import save_all

from heinfer.formats.bundle import Bundle

START_SECONDS = 60.0


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Poll; fail when the condition does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


class ServerProcess:
    """A running `python -m heinfer_server`.

    Attributes:
        url: as its line at readiness names it.
        ready_line: that line.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        assert process.stdout is not None
        self.ready_line = process.stdout.readline()
        found = re.search(r"http://\S+", self.ready_line)
        assert found, f"the server did not start: {self.log}"
        self.url = found[0]

    @property
    def log(self) -> str:
        time.sleep(0.1)  # the service gathers lines for a moment before it writes them
        return self._log.read_text()

    def children(self) -> set[int]:
        """Process ids of all its children."""
        return children_of(self.process.pid)

    def workers(self) -> set[int]:
        """Process ids of its workers."""
        return workers_of(self.process.pid)

    def worker(self) -> int:
        """Process id of its only worker."""
        (pid,) = self.workers()
        return pid

    def wait_until_busy(self, seconds: float = 30.0) -> None:
        """Wait until every worker has worked for a while from now on: more than reading a request takes."""
        since = {pid: cpu_seconds(pid) for pid in self.workers()}
        wait_until(lambda: all(cpu_seconds(pid) > before + 0.5 for pid, before in since.items()), seconds)

    def stop(self, seconds: float = 30.0) -> int:
        """End it as an operator would; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def launch(
    folder: Path,
    models: Sequence[Bundle],
    *,
    start_new_session: bool = False,
    prefix: Sequence[str] = (),
    **settings: object,
) -> subprocess.Popen[str]:
    """Start the service in a folder, with its temporary files and its log there too."""
    folder.mkdir(exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    paths = save_all(folder, models)
    chosen = {
        "host": "127.0.0.1",
        "port": 0,
        "workers": 1,
        "no_auth": "tenants" not in settings,
        "bundles": os.pathsep.join(map(str, paths)),
        **settings,
    }
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HEINFER_")},
        **{f"HEINFER_SERVER_{name.upper()}": str(value) for name, value in chosen.items()},
        "TMPDIR": str(folder / "tmp"),
    }
    with (folder / "log").open("w") as stderr:
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "heinfer_server"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=start_new_session,
        )


@contextmanager
def server_process(folder: Path, models: Sequence[Bundle], **settings: object) -> Iterator[ServerProcess]:
    """A service that is gone afterwards, whatever happened."""
    server = ServerProcess(launch(folder, models, **settings), folder / "log")
    try:
        yield server
    finally:
        leftover = server.children()
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()
        for pid in leftover:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used, in user and in system mode."""
    user, system = _stat(pid)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def workers_of(server: int) -> set[int]:
    """Process ids of the workers of a service, or of one that starts."""
    return {pid for pid in children_of(server) if b"worker_process" in _command(pid)}


def children_of(parent: int) -> set[int]:
    """Process ids of all children of a process."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {pid for pid in pids if _parent(pid) == parent}


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parent(pid: int) -> int:
    try:
        return int(_stat(pid)[1])
    except OSError:
        return 0


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""

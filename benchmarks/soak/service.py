"""The service under test: a process with its workers, ended and started again at one address."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

from benchmarks.soak.faked_clock import FakedClock
from benchmarks.soak.key_disk import KeyDisk
from benchmarks.support.ports import free_port

_START_SECONDS = 120.0
_END_SECONDS = 60.0
_KEYS_ROUTE = "/models/{model}/keys"
EVALUATION_TIMEOUT = 10.0


class Service:
    """`python -m heinfer_server` with settings for a soak.

    Attributes:
        url: the same after every start.
        port, metrics_port: of it.
        clock: that it sees; None where this machine has no C compiler.
        leaked: processes that were still there some time after the service had ended.
    """

    def __init__(self, folder: Path, disk: KeyDisk, bundles: Sequence[Path], tenants: Path) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.leaked = 0
        self._disk = disk
        self._log = folder / "log"
        for name in ("tmp", "constants"):
            (folder / name).mkdir()
        self.clock = FakedClock.made(folder)
        settings = {
            "port": self.port,
            "metrics_port": self.metrics_port,
            "tenants": tenants,
            "key_folder": disk.keys,
            "evaluation_timeout": EVALUATION_TIMEOUT,
            "workers": 2,
            "constants_folder": folder / "constants",
            "tenant_requests": 1_000_000,
            "tenant_bytes": "1TiB",
        }
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HEINFER_")},
            **{f"HEINFER_SERVER_{name.upper()}": str(value) for name, value in settings.items()},
            "TMPDIR": str(folder / "tmp"),
            **(self.clock.environment if self.clock else {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.serve(bundles)

    def serve(self, bundles: Sequence[Path]) -> None:
        """Have other bundles served from the next start on."""
        self._environment["HEINFER_SERVER_BUNDLES"] = os.pathsep.join(map(str, bundles))

    def load_code(self, folder: Path) -> None:
        """Have its processes run what a folder has for interpreters that start."""
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))

    def tell(self, what: signal.Signals) -> None:
        """Send the process that speaks HTTP a signal that does not end it."""
        assert self._process is not None
        self._process.send_signal(what)

    def start(self) -> None:
        """Start it, and wait until it can evaluate."""
        command = self._disk.entered([sys.executable, "-m", "heinfer_server"])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        end = monotonic() + _START_SECONDS
        while not self.is_ready():
            if self._process.poll() is not None or monotonic() > end:
                raise RuntimeError(f"the service did not start; see {self._log}")
            sleep(0.1)

    def is_ready(self) -> bool:
        """Whether a worker can evaluate."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False

    def end(self, how: signal.Signals) -> None:
        """Send the service a signal that ends it, and see that all its processes go."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(_END_SECONDS)
        end = monotonic() + _END_SECONDS
        while self.processes() and monotonic() < end:
            sleep(0.1)
        left = self.processes()
        self.leaked += len(left)
        for pid in left:
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill what is there of it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Of the process that speaks HTTP."""
        assert self._process is not None
        return self._process.pid

    def processes(self) -> list[int]:
        """Ids of all its processes, also when the one that speaks HTTP is gone: its session's, and its workers."""
        if self._process is None:
            return []
        service = self._process.pid
        return [pid for pid in _pids() if _session(pid) == service or _works_for(pid) == service]

    def workers(self, age: float = 0) -> list[int]:
        """Ids of those that evaluate, and were started so many seconds ago."""
        return [pid for pid in self.processes() if _works_for(pid) == self.pid and _age(pid) >= age]

    def resident(self, pid: int) -> int:
        """Bytes of memory that a process has for itself or shares; 0 when it is gone."""
        pages = _read(pid, "statm").split()
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else 0

    def descriptors(self) -> int:
        """Open files of the process that speaks HTTP."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def codes(self) -> Counter[str]:
        """Answers that were errors, by code, from the log of all its lives."""
        return Counter(line["code"] for line in self._requests() if line.get("code"))

    def registrations(self) -> int:
        """How often keys were sent whole and taken, in all its lives."""
        return sum(line["route"] == _KEYS_ROUTE and not line.get("code") for line in self._requests())

    def _requests(self) -> Iterator[dict[str, Any]]:
        lines = (json.loads(line) for line in self._log.read_bytes().splitlines() if line.startswith(b"{"))
        return (line for line in lines if line["event"] == "request")


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid: int, what: str) -> bytes:
    """A file of /proc; nothing of a process that is gone, ends just now, or is a zombie."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _works_for(pid: int) -> int:
    """Process id of the service whose worker a process is, which is its last argument; 0 when it is none's."""
    words = _read(pid, "cmdline").rstrip(b"\0").split(b"\0")
    return int(words[-1]) if b"heinfer_server.evaluation.worker_process" in words and words[-1].isdigit() else 0


def _session(pid: int) -> int:
    """Of a process; 0 when it is gone, or a zombie."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[3]) if fields and fields[0] != b"Z" else 0


def _age(pid: int) -> float:
    """Seconds since a process was started; below 0 when it is gone."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    if not fields:
        return -1.0
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")

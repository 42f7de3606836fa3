"""The unit for systemd: what it takes away, and that the service works without it, under the very filter."""

import ctypes
import errno
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pytest
from pages import ROOT
from server_process import server_process, wait_until
from tiny_model import cleartext_scores, tiny_bundle

from heinfer_client import Client

pytestmark = pytest.mark.slow

UNIT = ROOT / "deploy" / "heinfer.service"
MOST_EXPOSURE = 1.5  # of ten, by `systemd-analyze security`
SYSTEM_CALLS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 22, 38, 65
_SECCOMP_MODE_FILTER, _ALLOW, _ERRNO = 2, 0x7FFF0000, 0x00050000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


def settings(name: str) -> list[str]:
    """What the unit says under a name, every time."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.M)


@needs_systemd
def test_it_is_hardly_exposed():
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(re.search(r"Overall exposure level for heinfer.service: ([\d.]+)", found)[1]) <= MOST_EXPOSURE


@needs_systemd
def test_systemd_knows_all_that_it_says():
    found = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    lines = [line for line in (found.stdout + found.stderr).splitlines() if UNIT.name in line]
    assert all("/opt/heinfer/bin/heinfer is not executable" in line for line in lines), lines


@cache
def members(group: str) -> frozenset[str]:
    """Names of the system calls of a group, or of the one of that name."""
    if not group.startswith("@"):
        return frozenset({group})
    found = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    words = (line.strip() for line in found.stdout.splitlines()[1:])
    return frozenset().union(*(members(word) for word in words if word and not word.startswith("#")))


def allowed() -> set[int]:
    """Numbers of the system calls that the unit lets through, as systemd.exec(5) reads its lines."""
    names: set[str] = set(members("@default"))
    for line in settings("SystemCallFilter"):
        listed = set().union(*(members(word) for word in line.removeprefix("~").split()))
        names = names - listed if line.startswith("~") else names | listed
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", SYSTEM_CALLS.read_text()))
    return {int(numbers[name]) for name in names if name in numbers}


def confine(numbers: set[int]) -> None:
    """Do to this process what the unit does: no new privileges, no writable code, few system calls."""
    library = ctypes.CDLL(None, use_errno=True)
    program = [(_LOAD, 0, 0, 0)]
    for number in sorted(numbers):
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    library.prctl(_PR_SET_MDWE, 1, 0, 0, 0)  # before Linux 6.3 there is none
    if library.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_, 0, 0):
        os._exit(99)


@pytest.fixture
def confined(monkeypatch) -> None:
    """Confines whatever is started, before it runs."""
    if not SYSTEM_CALLS.exists() or platform.machine() != "x86_64":
        pytest.skip("the numbers of system calls are known for x86-64 with the kernel's headers only")
    start, numbers = subprocess.Popen, allowed()

    def confined_start(*arguments, **options):
        return start(*arguments, preexec_fn=lambda: confine(numbers), **options)

    monkeypatch.setattr(subprocess, "Popen", confined_start)


@needs_systemd
def test_the_filter_is_one(confined):
    script = "import os, socket; socket.socket(); os.getpid(); os.chroot('/')"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "PermissionError" in found.stderr


@needs_systemd
@pytest.mark.parametrize("backend", ["native", "tenseal"])
def test_the_service_does_all_that_it_does_under_it(tmp_path, confined, backend):
    model, image = tiny_bundle(), np.linspace(0, 1, 16).reshape(4, 4)
    (tmp_path / "constants").mkdir()
    chosen = {"key_folder": tmp_path / "keys", "metrics_port": 0, "backend": backend, "workers": 2}
    if backend == "native":
        chosen["constants_folder"] = tmp_path / "constants"
    with server_process(tmp_path / "service", [model], **chosen) as server:
        with Client(server.url, model="tiny", progress=False) as client:
            assert client.encrypt_and_predict(image).scores == pytest.approx(cleartext_scores(image), abs=0.3)
            os.kill(min(server.workers()), signal.SIGKILL)
            assert client.encrypt_and_predict(image).scores == pytest.approx(cleartext_scores(image), abs=0.3)
        port = re.search(r'"metrics served".*"port": ?(\d+)', server.log)[1]
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        assert re.search(r"^process_resident_memory_bytes [1-9]", metrics, re.M)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in server.log, 10)
        assert server.stop() == -signal.SIGTERM
        assert "Traceback" not in server.log

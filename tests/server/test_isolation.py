"""What a worker gives up: the filter is what its rules say, and services with and without the kernel's parts."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from asking import infer, registered
from hypothesis import given
from hypothesis import strategies as st
from in_process import running_service
from installed import INSTALLED
from owner import Owner
from tiny_model import cleartext_scores, tiny_bundle

from heinfer.errors import SettingError
from heinfer_server import Settings, create_app
from heinfer_server import service as service_module
from heinfer_server.isolation import seccomp
from heinfer_server.isolation.calls import NUMBERS, rules
from heinfer_server.isolation.confinement import FILTER, LANDLOCK, available_parts
from heinfer_server.models import load_models
from heinfer_server.sealed import open_sealed

MODEL = tiny_bundle()
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
EVERY_PART = frozenset({LANDLOCK, FILTER})
ALLOWED, DENIED, UNKNOWN, KILLED = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
needs_all = pytest.mark.skipif(available_parts() != EVERY_PART, reason="this kernel cannot isolate a worker")


# The filter ------------------------------------------------------------------------------------


def runfilter_code(code: bytes, number: int, architecture: int, arguments: tuple[int, ...]) -> int:
    """What a program of classic BPF returns for a system call."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments)
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = struct.unpack_from("HBBI", code, 8 * at)
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x06:
                return value


words = st.integers(0, 2**64 - 1) | st.integers(0, 64) | st.sampled_from([0x40000000, 0x100, 4321])


@given(
    st.sampled_from(sorted(NUMBERS)),
    st.booleans(),
    st.booleans(),
    st.integers(0, 500),
    st.tuples(*[words] * 6),
)
def test_the_filter_lets_through_what_its_rules_say(machine, threads, files, number, arguments):
    allowed = rules(4321, threads=threads, files=files)
    code = seccomp.filter_code(allowed, machine)
    names = {of: name for name, of in NUMBERS[machine].items()}
    name = names.get(number, "")
    fits = any(
        all(arguments[c.argument] & c.mask == c.value for c in alternative) for alternative in allowed.get(name, ())
    )
    expected = ALLOWED if fits else UNKNOWN if name == "clone3" else DENIED
    assert runfilter_code(code, number, seccomp._ARCHITECTURES[machine], arguments) == expected


@pytest.mark.parametrize("machine", NUMBERS)
def test_calls_of_another_machine_end_the_process(machine):
    code = seccomp.filter_code(rules(1, threads=False, files=False), machine)
    assert runfilter_code(code, 0, 0x40000003, (0,) * 6) == KILLED  # 32-bit x86, where 0 and 1 are other calls
    assert runfilter_code(code, 0x40000000, seccomp._ARCHITECTURES[machine], (0,) * 6) == DENIED  # x32


def test_no_process_is_made_and_threads_only_where_there_are_several():
    for threads, expected in ((False, DENIED), (True, ALLOWED)):
        code = seccomp.filter_code(rules(1, threads=threads, files=False), "x86_64")
        thread = 0x3D0F00  # as glibc makes one
        assert runfilter_code(code, 56, 0xC000003E, (thread, 0, 0, 0, 0, 0)) == expected
        assert runfilter_code(code, 56, 0xC000003E, (17, 0, 0, 0, 0, 0)) == DENIED


def test_a_file_is_opened_to_be_read_or_written_and_for_nothing_else():
    code = seccomp.filter_code(rules(1, threads=False, files=True), "x86_64")
    for flags, expected in (
        (os.O_RDONLY | os.O_CLOEXEC, ALLOWED),
        (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, ALLOWED),
        (os.O_PATH, DENIED),
        (os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, DENIED),
        (os.O_DIRECTORY, DENIED),
        (os.O_TMPFILE | os.O_RDWR, DENIED),
    ):
        assert runfilter_code(code, 257, 0xC000003E, (2**64 - 100, 0, flags, 0, 0, 0)) == expected


# Services --------------------------------------------------------------------------------------


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def assert_right(running) -> None:
    owner = Owner(MODEL)
    answer = infer(running.http, registered(running.http, owner.keys), owner.inputs(IMAGE))
    assert owner.scores(answer.content) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


@needs_all
@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_worker_has_no_rights_and_evaluates(tmp_path, backend, threads):
    if backend == "tenseal" and threads > 1:
        pytest.skip("SEAL takes one thread")
    with running_service(tmp_path, [MODEL], backend=backend, threads=threads, require_isolation=True) as running:
        assert_right(running)
        worker = running.worker
        status = status_of(worker.pid)
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        assert_right(running)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    assert {int(status[of], 16) for of in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    data = next(line.split()[3] for line in limits.splitlines() if line.startswith("Max data size"))
    assert int(data) < 4 << 30


@pytest.mark.parametrize("lacking", [{LANDLOCK}, {FILTER}, EVERY_PART])
def test_without_a_part_it_serves_and_says_so_once_or_refuses(tmp_path, monkeypatch, caplog, lacking):
    monkeypatch.setattr(service_module, "available_parts", lambda: available_parts() - lacking)
    with caplog.at_level(logging.WARNING), running_service(tmp_path, [MODEL]) as running:
        assert_right(running)
    said = [record.facts["missing"] for record in caplog.records if record.message == "worker isolation incomplete"]
    assert len(said) == 1
    assert {part for part in EVERY_PART if part in said[0]} == lacking
    settings = Settings(bundles=tuple(tmp_path.glob("*")), no_auth=True, require_isolation=True)
    with pytest.raises(SettingError, match="REQUIRE_ISOLATION") as refused:
        create_app(settings, load_models(settings.bundles))
    assert all(part in str(refused.value) for part in lacking)


def test_what_is_handed_over_is_never_changed():
    descriptor = open_sealed("test", b"content")
    try:
        assert os.pread(descriptor, 100, 0) == b"content"
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
        for change in (lambda: os.write(again, b"x"), lambda: os.truncate(again, 0), lambda: os.truncate(again, 99)):
            with pytest.raises(PermissionError):
                change()
        with pytest.raises(PermissionError):
            fcntl.fcntl(again, fcntl.F_ADD_SEALS, 0)
        os.close(again)
    finally:
        os.close(descriptor)


# Constants -------------------------------------------------------------------------------------


@pytest.mark.skipif("native" not in INSTALLED, reason="SEAL keeps no constants")
def test_constants_are_written_before_workers_start_and_never_by_one(tmp_path):
    folder = tmp_path / "constants"
    folder.mkdir()
    with running_service(tmp_path, [MODEL], backend="native", constants_folder=folder) as running:
        (file,) = folder.iterdir()
        written = file.stat().st_mtime_ns
        worker = running.worker
        running.portal.call(worker.stop)
        assert_right(running)  # a new process maps it
        assert file.stat().st_mtime_ns == written
        file.unlink()
        running.portal.call(worker.stop)
        assert_right(running)  # and one without it encodes for itself
        assert not list(folder.iterdir())

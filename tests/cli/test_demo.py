"""The demo, as a user runs it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from server_process import alive, wait_until

pytestmark = pytest.mark.slow

SUMMARY = re.compile(
    r"demo: (\d+)/20 match the cleartext model, (\d+)/20 correct, server (\d+\.\d+) s per image, (-?\d+\.\d+) bits"
)
COMMAND = [sys.executable, "-m", "heinfer", "demo"]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("anywhere")
    return subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_the_last_line_says_that_all_match(done):
    assert done.returncode == 0, done.stderr
    found = SUMMARY.fullmatch(done.stdout.splitlines()[-1])
    assert found
    match, correct, seconds, bits = found.groups()
    assert match == "20"
    assert int(correct) >= 19
    assert 0 < float(seconds) < 10
    assert float(bits) >= 8


def test_the_table_has_a_row_for_each_digit(done):
    rows = re.findall(r"^│\s+(\d)\s+│\s+(\d)\s+│\s+(\d)\s+│\s+\d+\s+│\s+\d+\s+│\s+[\d,]+\s+│$", done.stdout, re.M)
    assert [int(digit) for digit, _, _ in rows] == [digit for digit in range(10) for _ in range(2)]
    assert all(predicted == expected for _, predicted, expected in rows)


def test_parameters_and_sizes_are_printed_and_within_bounds(done):
    found = re.search(r"N = (\d+), (\d+\.\d) bits of modulus; 128-bit security allows (\d+)", done.stdout)
    assert found
    assert found[1] == "8192"
    assert float(found[2]) <= int(found[3]) == 214
    sizes = re.search(r"upload ([\d,]+) bytes an image; evaluation keys ([\d,]+) bytes", done.stdout)
    assert sizes
    upload, keys = (int(size.replace(",", "")) for size in sizes.groups())
    assert upload <= 300_000
    assert keys <= 40_000_000
    assert re.search(r"^elapsed \d+ s$", done.stdout, re.M)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_ended_takes_its_server_along(kind, tmp_path):
    heard = ["env", "--default-signal=INT", *COMMAND]  # a job in the background inherits that SIGINT is ignored
    process = subprocess.Popen(heard, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    descendants: set[int] = set()
    try:
        wait_until(lambda: len(children_of(process.pid)) == 1, 60)
        (server,) = children_of(process.pid)
        wait_until(lambda: len(children_of(server)) >= 1, 60)
        descendants = {server, *children_of(server)}
        process.send_signal(kind)
        assert process.wait(60) != 0
        wait_until(lambda: not any(map(alive, descendants)), 30)
    finally:
        process.kill()
        process.wait()
        for pid in filter(alive, descendants):
            os.kill(pid, signal.SIGKILL)


def children_of(pid: int) -> set[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for path in lists for child in path.read_text().split()}

"""The threads of the native library under ThreadSanitizer, which sees every access that nothing orders."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).with_name("pool.cpp"), ROOT / "native" / "src" / "pool.cpp"
FLAGS = "-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{ROOT / 'native' / 'src'}"


def compiled(folder: Path, *options: str) -> Path:
    program = folder / "pool"
    subprocess.run(["c++", *FLAGS, *options, *map(str, SOURCES), "-o", str(program)], check=True, capture_output=True)
    return program


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("pool")
    try:
        return compiled(folder, "-fsanitize=thread")
    except subprocess.CalledProcessError as error:
        if b"tsan" not in error.stderr:
            raise
        return compiled(folder)  # there is no ThreadSanitizer: what the program itself finds


def run(program: Path, threads: int, phases: int, work: int) -> str:
    # Not where the environment preloads another sanitizer.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = [str(program), str(threads), str(phases), str(work)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
    return done.stdout + done.stderr


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_each_task_is_run_once_and_no_phase_before_the_last_one_has_ended(watched, threads):
    assert run(watched, threads, phases=200, work=300) == "done\n"


def test_so_it_is_where_tasks_take_longer_than_a_turn_of_the_processor(watched):
    assert run(watched, threads=3, phases=10, work=200_000) == "done\n"

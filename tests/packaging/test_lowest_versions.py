"""Client and server with the lowest versions that pyproject.toml allows: they import, and the demo runs."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("client", "protected", "server", "signing")
INSTALL_SECONDS = 600
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("HEINFER_", "PYTHONPATH"))}


def lowest() -> list[str]:
    """A pin for every dependency at its lower bound."""
    extras = PROJECT["optional-dependencies"]
    wanted = {*PROJECT["dependencies"], *(entry for extra in EXTRAS for entry in extras[extra])}
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", entry) for entry in wanted)
    return sorted(entry.replace(">=", "==") for entry in wanted)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A virtual environment of these and of heinfer."""
    folder, source = tmp_path_factory.mktemp("lowest"), tmp_path_factory.mktemp("source")
    for name in ("heinfer", "server", "client", "cli"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet"]
    for what in (lowest(), ["--no-deps", str(source)]):
        subprocess.run([*pip, *what], timeout=INSTALL_SECONDS, check=True, env=ENVIRONMENT)
    return folder


def run(environment: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(environment / "bin" / words[0]), *words[1:]]
    return subprocess.run(
        command, cwd=environment, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )


def test_everything_is_imported_without_a_warning_that_is_shown(environment):
    script = (
        "import heinfer, heinfer_client, heinfer_server, heinfer_cli; "
        "print(heinfer.load, heinfer.Limits, heinfer_server.create_app, heinfer_server.run, heinfer_server.Settings)"
    )
    done = run(environment, "python", "-W", "error::UserWarning", "-c", script)
    assert done.returncode == 0, done.stderr


def test_neither_scipy_nor_torch_is_there_and_who_compiles_learns_what_to_install(environment):
    script = (
        "import sys, heinfer\nfrom importlib.util import find_spec\n"
        "print(*map(find_spec, ('scipy', 'torch')))\n"
        "try: heinfer.compile\nexcept heinfer.errors.SettingError as error: print(error)"
    )
    done = run(environment, "python", "-c", script)
    assert done.stdout.splitlines() == ["None None", "scipy is not installed: pip install 'heinfer[train]'"], (
        done.stderr
    )


def test_the_demo_runs(environment):
    done = run(environment, "heinfer", "demo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("demo: 20/20 match")


@pytest.mark.parametrize(
    "words", [("--version",), ("--help",), ("plan", "mnist-ffconv"), ("tenant", "--help")], ids=str
)
def test_the_command_line_runs(environment, words):
    done = run(environment, "heinfer", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_what_is_installed_is_what_was_asked_for(environment):
    done = run(environment, "python", "-m", "pip", "list", "--format", "freeze")
    found = dict(line.lower().replace("_", "-").split("==") for line in done.stdout.splitlines())
    for pin in lowest():
        name, version = pin.split("==")
        assert (*map(int, found[name].split(".")), 0, 0)[: version.count(".") + 1] == (*map(int, version.split(".")),)
    assert sys.version_info[:2] >= tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))

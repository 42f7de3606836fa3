"""What the container image does, without a container engine: its build, start and health-check commands.

The commands are those of Dockerfile and docker-compose.yml, run in a virtual environment that the Dockerfile's own
pip command fills from the files that it copies. Users, mounts and the read-only root are only read.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from benchmarks.support.ports import free_port
from heinfer.zoo import digits
from heinfer_client import Client

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
INSTALL_SECONDS = 600
IN_IMAGE = "/opt/heinfer"


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of every line of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, rest in (line.split(None, 1) for line in lines)]


def final_stage() -> dict[str, list[str]]:
    """What follows the last FROM, by instruction."""
    lines = instructions()
    last = max(number for number, (name, _) in enumerate(lines) if name == "FROM")
    found: dict[str, list[str]] = {}
    for name, rest in lines[last:]:
        found.setdefault(name, []).append(rest)
    return found


def copied() -> list[str]:
    """Paths in this repository that the image is built from."""
    copies = [rest for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    return [source for rest in copies for source in rest.split()[:-1]]


def environment() -> dict[str, str]:
    return dict(rest.split("=", 1) for rest in final_stage()["ENV"])


def start_command() -> list[str]:
    stage = final_stage()
    return [*json.loads(stage["ENTRYPOINT"][0]), *json.loads(stage["CMD"][0])]


def health_commands() -> dict[str, list[str]]:
    test = compose()["healthcheck"]["test"]
    assert test[0] == "CMD"
    return {
        "Dockerfile": json.loads(final_stage()["HEALTHCHECK"][0].partition("CMD ")[2]),
        "docker-compose.yml": test[1:],
    }


def compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["server"]


# What can be read ---------------------------------------------------------------------------------


def test_the_image_runs_as_a_user_of_its_own_and_has_only_the_service():
    assert all(int(part) > 1000 for part in final_stage()["USER"][0].split(":"))
    installs = [rest for name, rest in instructions() if name == "RUN" and f"{IN_IMAGE}/bin/pip install " in rest]
    assert [install.partition(" install ")[2] for install in installs] == [
        "--no-cache-dir --require-hashes -r requirements/server.lock",
        f"--no-deps --no-index -f {IN_IMAGE}-build/wheels heinfer heinfer-native",
    ]


def test_what_the_image_copies_is_there_and_not_ignored():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = [
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert set(copied) == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_compose_is_for_this_machine_only_and_writes_only_where_keys_are_kept():
    service = compose()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["shm_size"] == "64m"
    assert service["volumes"] == ["keys:/var/lib/heinfer"]
    assert service["environment"]["HEINFER_SERVER_KEY_FOLDER"].startswith("/var/lib/heinfer/")
    assert environment()["HEINFER_SERVER_TENANTS"].startswith("/var/lib/heinfer/")
    user = final_stage()["USER"][0].split(":")[0]
    assert any(f"--owner={user}" in rest and rest.endswith(" /var/lib/heinfer") for rest in final_stage()["RUN"])


def test_monitoring_is_asked_for_and_for_this_machine_only():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert not any(str(compose()["environment"]["HEINFER_SERVER_METRICS_PORT"]) in port for port in compose()["ports"])
    for name in services.keys() - {"server"}:
        assert services[name]["profiles"] == ["monitoring"]
        assert all(port.startswith("127.0.0.1:") for port in services[name].get("ports", []))
        for volume in services[name]["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists()
    (scraped,) = yaml.safe_load((ROOT / "monitoring/prometheus.yml").read_text())["scrape_configs"]
    port = compose()["environment"]["HEINFER_SERVER_METRICS_PORT"]
    assert scraped["static_configs"] == [{"targets": [f"server:{port}"]}]


def test_nobody_can_log_in_to_grafana_with_a_password_that_all_know():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    chosen = services["grafana"]["environment"]
    assert chosen["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert chosen["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"  # of volumes that have such a user from before, too
    assert chosen["GF_AUTH_BASIC_ENABLED"] == "false"
    assert chosen["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


# What can be run ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Container:
    """A virtual environment in the image's place, and an environment for its commands."""

    root: Path
    env: dict[str, str]

    def command(self, words: list[str]) -> list[str]:
        return [str(self.root / "bin" / words[0]), *words[1:]]

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        command = self.command(words)
        return subprocess.run(
            command, env=self.env, cwd=self.root, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="module")
def container(tmp_path_factory) -> Container:
    """Carry out the Dockerfile's COPY and pip lines, with a folder for /opt/heinfer."""
    source, root = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("image") / "heinfer"
    for item in copied():
        copy(ROOT / item, source / item)
    for name, rest in instructions():
        if name == "RUN" and IN_IMAGE in rest:
            words = shlex.split(rest.replace(IN_IMAGE, str(root)))
            words[0] = sys.executable if words[0] == "python" else words[0]
            subprocess.run(words, cwd=source, timeout=INSTALL_SECONDS, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(source)  # as in the image, where only /opt/heinfer is carried over
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("HEINFER_", "PYTHON", "VIRTUAL_ENV"))
    }
    image = {**environment(), "PATH": f"{root / 'bin'}:{os.environ['PATH']}"}
    here = {"HEINFER_SERVER_HOST": "127.0.0.1", "HEINFER_SERVER_PORT": str(free_port()), "HEINFER_SERVER_WORKERS": "1"}
    here["HEINFER_SERVER_TENANTS"] = str(root.parent / "tenants.json")
    return Container(root, {**inherited, **image, **here})


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    else:
        shutil.copy(source, target)


@pytest.fixture(scope="module")
def api_key(container) -> str:
    """Of the first tenant, made as docker-compose.yml says."""
    line = next(line for line in (ROOT / "docker-compose.yml").read_text().splitlines() if " tenant add " in line)
    words = line.partition("--entrypoint heinfer server")[2].partition("(")[0].split()
    done = container.run(["heinfer", *words])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def server(container, api_key) -> Iterator[subprocess.Popen[str]]:
    """The image's start command."""
    process = subprocess.Popen(
        container.command(start_command()), env=container.env, cwd=container.root, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert "http://127.0.0.1:" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_is_installed_is_all_of_the_source(container):
    (packages,) = container.root.glob("lib/python3*/site-packages")
    for source in ("heinfer", "server/heinfer_server", "client/heinfer_client", "cli/heinfer_cli"):
        assert files_of(packages / Path(source).name) == files_of(ROOT / source)


def files_of(folder: Path) -> set[Path]:
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in files if "__pycache__" not in path.parts}


def test_the_image_holds_neither_compiler_nor_client(container):
    script = "from importlib.util import find_spec; print([n for n in ('torch', 'httpx', 'pytest') if find_spec(n)])"
    assert container.run(["python", "-c", script]).stdout.strip() == "[]"


@pytest.mark.parametrize("file", health_commands())
def test_the_server_is_healthy(container, server, file):
    done = container.run(health_commands()[file])
    assert done.returncode == 0, done.stderr


def test_the_server_classifies_a_digit(container, server, api_key):
    shipped = digits()
    assert container.run(["python", "-c", "import heinfer_native"]).returncode == 0
    url = f"http://127.0.0.1:{container.env['HEINFER_SERVER_PORT']}"
    with Client(url, model=start_command()[-1], api_key=api_key, progress=False) as client:
        assert client.encrypt_and_predict(shipped.images[0]).label == str(shipped.labels[0])


@pytest.mark.parametrize("file", health_commands())
def test_a_stopped_server_is_not_healthy(container, server, file):
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) in (0, -signal.SIGTERM)  # uvicorn ends in order, then by the signal that asked for it
    assert container.run(health_commands()[file]).returncode != 0

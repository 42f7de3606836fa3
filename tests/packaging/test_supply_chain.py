"""What is installed is what was locked; an audit or a pin that could not look says so."""

import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
NOT_LOCKED = {"torch"}  # its files differ by kind of processor and GPU

sys.path.insert(0, str(REQUIREMENTS))
import audit  # noqa: E402
import pin_images  # noqa: E402


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Package -> version and number of hashes."""
    entries = re.split(r"\n(?=[a-z])", (REQUIREMENTS / name).read_text())
    found = {}
    for entry in entries:
        if entry.startswith("#"):
            continue
        pin = re.match(r"([\w.-]+)==(\S+)", entry)
        assert pin, entry
        found[normal(pin[1])] = (pin[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)))
    return found


def constrained() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def wanted(*extras: str) -> set[str]:
    """Packages that the project asks for itself."""
    requirements = [*PROJECT["project"]["dependencies"], *(entry for extra in extras for entry in EXTRAS[extra])]
    names = {normal(re.match(r"[\w.-]+", entry)[0]) for entry in requirements}
    inner = {part for entry in requirements if entry.startswith("heinfer[") for part in entry[8:-1].split(",")}
    return (names | (wanted(*inner) if inner else set())) - {"heinfer"}


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("server.lock", ("server", "signing")), ("client.lock", ("client", "protected")), ("dev.lock", ("dev",))],
)
def test_locks_have_all_that_is_wanted_with_hashes_at_the_tested_versions(lock, extras):
    packages, versions = locked(lock), constrained()
    assert wanted(*extras) - packages.keys() <= NOT_LOCKED
    assert all(hashes for _, hashes in packages.values())
    assert not {name for name in packages if normal(name).startswith(("nvidia", "torch"))}
    assert {name: version for name, (version, _) in packages.items() if name in versions} == {
        name: versions[name] for name in packages.keys() & versions.keys()
    }
    assert packages.keys() - versions.keys() <= {"colorama", "pywin32-ctypes"}  # of Windows


def test_client_and_server_install_nothing_that_compiles():
    compiling = wanted("train") - wanted()
    assert compiling == {"torch", "scipy", "pooch"}
    for lock in ("server.lock", "client.lock"):
        assert not compiling & locked(lock).keys()


def test_what_builds_is_locked():
    needed = [*PROJECT["build-system"]["requires"]]
    needed += tomllib.loads((ROOT / "native/pyproject.toml").read_text())["build-system"]["requires"]
    for lock in ("build.lock", "audit.lock"):
        assert all(hashes for _, hashes in locked(lock).values())
    assert {normal(re.match(r"[\w.-]+", entry)[0]) for entry in needed} <= locked("build.lock").keys()


INSTALLS = re.compile(r"pip(?:3)? install (.*)")


def test_the_documented_installs_take_what_is_locked():
    """Every command that fetches anything names locks; what is ours is installed without fetching."""
    for name in ("README.md", "docs/operation.md", "docs/your-model.md", "Dockerfile"):
        commands = [found.split("`")[0] for found in INSTALLS.findall((ROOT / name).read_text())]
        assert commands, name
        for command in commands:
            assert "--require-hashes" in command or "--no-deps" in command, f"{name}: pip install {command}"
            assert "--no-deps" not in command or "--no-build-isolation" in command or "--no-index" in command, command
    text = (ROOT / "Makefile").read_text()
    assert "--require-hashes" in text
    assert all("--no-build-isolation" in line for line in text.splitlines() if "--no-deps" in line)


# The audit -------------------------------------------------------------------------------------


def pip_audit(folder: Path, answer: object, code: int) -> str:
    """A pip-audit that answers so."""
    program = folder / "pip-audit"
    told = answer if isinstance(answer, str) else json.dumps(answer)
    program.write_text(f"#!{sys.executable}\nimport sys\nprint({told!r})\nsys.exit({code})\n")
    program.chmod(0o755)
    return str(program)


GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (1)"}


@pytest.mark.parametrize(
    ("answer", "code", "expected", "told"),
    [
        ({"dependencies": [GOOD]}, 0, 0, "1 pinned packages looked up, none has"),
        ({"dependencies": [GOOD, BAD]}, 1, 1, "vulnerable: b 2: PYSEC-1, mended in 3"),
        ({"dependencies": [GOOD, SKIPPED]}, 0, 2, "could not look everything up"),
        ({"dependencies": [BAD, SKIPPED]}, 1, 2, "could not look everything up"),
        ({"dependencies": []}, 0, 2, "there are no packages in it"),
        ("Traceback: no network", 1, 2, "could not look everything up"),
        ("", 1, 2, "could not look everything up"),
    ],
)
def test_an_audit_that_could_not_look_is_no_audit(tmp_path, capsys, answer, code, expected, told):
    assert audit.main(pip_audit(tmp_path, answer, code), ["x.lock"]) == expected
    printed = capsys.readouterr()
    assert told in printed.out + printed.err


def test_the_audit_is_a_command(tmp_path):
    command = [sys.executable, REQUIREMENTS / "audit.py", pip_audit(tmp_path, {"dependencies": [SKIPPED]}, 0), "x.lock"]
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 2


# Images ----------------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Iterator[tuple[str, dict[str, str]]]:
    """A registry that knows some digests, by path."""
    digests: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            digest = digests.get(self.path)
            self.send_response(200 if digest is not None else 404)
            self.send_header("Docker-Content-Digest", digest or "")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", digests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_images_are_pinned_to_what_the_registry_names(registry):
    url, digests = registry
    one, two = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    digests |= {"/v2/library/python/manifests/3.11-slim": one, "/v2/prom/prometheus/manifests/v3.5.0": two}
    docker = "FROM python:3.11-slim AS build\nCOPY --from=build a b\nFROM python:3.11-slim@sha256:" + "0" * 64 + "\n"
    assert pin_images.pinned(docker, url) == (
        f"FROM python:3.11-slim@{one} AS build\nCOPY --from=build a b\nFROM python:3.11-slim@{one}\n"
    )
    compose = "    image: heinfer-server\n    image: prom/prometheus:v3.5.0\n"
    assert pin_images.pinned(compose, url) == f"    image: heinfer-server\n    image: prom/prometheus:v3.5.0@{two}\n"
    digests["/v2/prom/prometheus/manifests/v3.5.0"] = "sha256:short"
    with pytest.raises(ValueError, match="names no digest"):
        pin_images.pinned(compose, url)


def test_without_a_registry_no_image_is_called_pinned(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pin_images, "digest_of", lambda *_: (_ for _ in ()).throw(OSError("no route")))
    file = tmp_path / "Dockerfile"
    file.write_text("FROM python:3.11-slim\n")
    assert pin_images.main([str(file)]) == 2
    assert file.read_text() == "FROM python:3.11-slim\n"
    assert "did not answer: no route" in capsys.readouterr().err


def test_every_image_that_is_fetched_can_be_pinned():
    texts = [(ROOT / name).read_text() for name in ("Dockerfile", "docker-compose.yml")]
    found = {match["name"] for text in texts for match in pin_images.IMAGE.finditer(text)}
    assert found == {"python", "prom/prometheus", "grafana/grafana"}

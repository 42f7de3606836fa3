"""The README, done as it says: in its order, with an activated environment, on the port that it names."""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from heinfer.zoo import digits

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text()
ACTIVATED = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def shell_lines(text: str) -> list[list[str]]:
    """Words of every command in shell blocks, without comments."""
    return [words for block in blocks(text, "sh") for line in block.splitlines() if (words := shlex.split(line, True))]


def inline(verb: str) -> list[str]:
    """Words of the first `heinfer VERB ...` in the README's running text."""
    found = re.search(rf"`(heinfer {verb} [^`]+)`", README)
    assert found
    return shlex.split(found[1])


COMPILE, CALL = blocks(README, "python")
(SERVE,) = [words for words in shell_lines(README) if words[0] == "heinfer"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    broken = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_has_the_verbs_that_documents_name(document):
    text = document.read_text()
    verbs = {words[1] for words in shell_lines(text) if words[0] == "make"} | set(re.findall(r"`make ([a-z-]+)`", text))
    for verb in sorted(verbs):
        subprocess.run(["make", "--dry-run", verb], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the reader works, after the model of the README has been compiled there."""
    folder = tmp_path_factory.mktemp("reader")
    done = python(COMPILE, folder)
    assert "Counts(rotations=" in done.stdout
    return folder


def python(block: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["python", "-c", block], env=ACTIVATED, cwd=folder, capture_output=True, text=True, check=True
    )


def shell(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, env=ACTIVATED, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def service(folder) -> Iterator[None]:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("something else listens on port 8000, which the README names")
    process = subprocess.Popen(SERVE, env=ACTIVATED, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "http://127.0.0.1:8000" in process.stdout.readline()
        yield
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def test_the_report_of_the_readers_model(folder):
    assert "evaluation keys" in shell(inline("plan"), folder)


def test_the_readers_call(folder, service):
    assert python(CALL, folder).stdout.strip() == str(digits().labels[0])


def test_the_readers_shell(folder, service):
    shipped = digits()
    words = inline("predict")
    Image.fromarray(shipped.images[-1]).save(folder / words[-1])
    assert re.search(rf"{words[-1]}\W+{shipped.labels[-1]}\W", shell(words, folder))

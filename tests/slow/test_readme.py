"""The README, done as it says: in its order, with an activated environment, on the port that it names."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT, blocks, inline, python, serving, shell, shell_lines
from PIL import Image

from heinfer.zoo import digits

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text()


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
    assert "Counts(rotations=" in python(COMPILE, folder)
    return folder


@pytest.fixture(scope="module")
def service(folder) -> Iterator[None]:
    with serving(SERVE, folder):
        yield


def test_the_report_of_the_readers_model(folder):
    assert "evaluation keys" in shell(inline(README, "plan"), folder)


def test_the_readers_call(folder, service):
    label, confidence, in_range = python(CALL, folder).split()
    assert (label, in_range) == (str(digits().labels[0]), "True")
    assert confidence in ("high", "medium", "low")


def test_the_readers_shell(folder, service):
    shipped = digits()
    words = inline(README, "predict")
    Image.fromarray(shipped.images[-1]).save(folder / words[-1])
    assert re.search(rf"{words[-1]}\W+{shipped.labels[-1]}\W", shell(words, folder))

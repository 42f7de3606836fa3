"""The README, done as it says: in its order, with an activated environment, on the port that it names."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT, blocks, inline, python, serving, shell, shell_lines
from PIL import Image

from heinfer.zoo import digits

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()


COMPILE, CALL = blocks(README, "python")
(SERVE,) = [words for words in shell_lines(README) if words[0] == "heinfer"]


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

"""Doing what a page of the documentation says, with an activated environment, in a folder of the reader's."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACTIVATED = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def shell_lines(text: str) -> list[list[str]]:
    """Words of every command in shell blocks, without comments."""
    return [words for block in blocks(text, "sh") for line in block.splitlines() if (words := shlex.split(line, True))]


def inline(text: str, verb: str) -> list[str]:
    """Words of the first `heinfer VERB ...` in a page's running text."""
    found = re.search(rf"`(heinfer {verb} [^`]+)`", text)
    assert found
    return shlex.split(found[1])


def python(block: str, folder: Path) -> str:
    done = subprocess.run(
        ["python", "-c", block], env=ACTIVATED, cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def shell(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, env=ACTIVATED, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@contextmanager
def serving(words: list[str], folder: Path) -> Iterator[None]:
    """The service that a page starts, on the port that it names."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("something else listens on port 8000, which the page names")
    process = subprocess.Popen(words, env=ACTIVATED, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "http://127.0.0.1:8000" in process.stdout.readline()
        yield
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()

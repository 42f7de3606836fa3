"""A virtual environment for each peer, made when it is first needed, and the processes that run in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "peers"

_BASICS = ("numpy==2.2.6",)
REQUIREMENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "tenseal": ((*_BASICS, "tenseal==0.3.18"),),
    "orion": (
        (
            *_BASICS,
            "torch==2.13.0",
            "scipy==1.14.1",
            "h5py==3.16.0",
            "matplotlib==3.11.2",
            "PyYAML==6.0.4",
            "tqdm==4.70.1",
        ),
        ("--no-deps", "orion-fhe==1.0.2"),  # it wants torchvision as well, for data sets
    ),
}
"""What each peer's environment holds: arguments of one call of pip after the other."""

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "GOMAXPROCS"), "1"
)


class PeerError(Exception):
    """A peer's process ended before it answered."""


def interpreter(peer: str) -> Path:
    """The Python of a peer's environment, made in build/peers when it is not there, or was made of something else."""
    folder = FOLDER / peer
    python, stamp = folder / "bin" / "python", folder / "requirements.json"
    wanted = json.dumps(REQUIREMENTS[peer])
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    for arguments in REQUIREMENTS[peer]:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *arguments], check=True)
    stamp.write_text(wanted)
    return python


class Driven:
    """A peer's process; it takes one request at a time, so two of them never work at once.

    Attributes:
        facts: what it said of itself.
        peak_bytes: the most memory it had while it evaluated.
    """

    def __init__(self, process: subprocess.Popen[str], network: str, arrays: Path) -> None:
        self._process = process
        self.facts = self._ask({"network": network, "arrays": str(arrays)})
        self.peak_bytes = 0

    def evaluate(self, number: int) -> tuple[list[float], float]:
        """Decrypted scores of an input, and the seconds of its evaluation."""
        answer = self._ask({"evaluate": number})
        self.peak_bytes = answer["peak_bytes"]
        return answer["scores"], answer["seconds"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"the process of a peer ended with {self._process.wait()}; its errors are above")
        return dict(json.loads(line))


@contextmanager
def driven(script: str, python: Path, network: str, arrays: Path) -> Iterator[Driven]:
    """Run `benchmarks.peers.SCRIPT` with an interpreter, one thread for everything, until the block ends."""
    process = subprocess.Popen(
        [python, "-m", f"benchmarks.peers.{script}"],
        cwd=ROOT,
        env=os.environ | _ONE_THREAD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Driven(process, network, arrays)

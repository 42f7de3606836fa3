"""A peer's end of the pipe: requests come in as lines of JSON, answers go out as such.

Imports nothing but the standard library and what imports no more: the peers' environments hold nothing of heinfer.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Protocol

from benchmarks.support.memory import peak_bytes

_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class Peer(Protocol):
    """A library with a network loaded, keys made, and a client's and a server's half of the work."""

    def facts(self) -> dict[str, Any]:
        """Parameters and sizes, for the record."""

    def evaluate(self, number: int) -> tuple[list[float], float]:
        """Decrypted scores of an input, and the seconds from its ciphertext, loaded, to the result's."""


class Opens(Protocol):
    """Makes a peer from a file of inputs and weights."""

    def __call__(self, network: str, arrays: Path) -> Peer: ...


def serve(opens: Opens) -> None:
    """Answer until the other end closes. What the library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer: Peer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if peer is None:
            peer = opens(request["network"], Path(request["arrays"]))
            answer = peer.facts() | {"peak_bytes": peak_bytes()}
            reset_peak()
        else:
            scores, seconds = peer.evaluate(request["evaluate"])
            answer = {"scores": scores, "seconds": seconds, "peak_bytes": peak_bytes()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def reset_peak() -> None:
    """Forget the peak so far."""
    _CLEAR.write_text(_RESET_PEAK)

"""heinfer on its native backend, driven as the peers are: a bundle, one client's half and a server's half."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.peers.channel import serve
from benchmarks.support.subject import Subject
from heinfer.compiler.report import report
from heinfer.formats import bundle


class Compiled:
    """A compiled network with its keys loaded; the bundle lies beside the arrays."""

    def __init__(self, network: str, arrays: Path) -> None:
        with np.load(arrays) as file:
            self._pixels = np.rint(255 * file["images"][:, 0]).astype(np.uint8)
        started = perf_counter()
        self._bundle = bundle.load(arrays.with_name(f"{network}.heinfer"))
        self._subject = Subject(self._bundle, "native")
        self._seconds = perf_counter() - started

    def facts(self) -> dict[str, Any]:
        facts = report(self._bundle)
        return {
            "ring_degree": facts.parameters.ring_degree,
            "log_qp": facts.parameters.log_qp,
            "levels": facts.input_level,
            "rotations": facts.counts.rotations,
            "key_switches": facts.counts.key_switches,
            "hma": facts.counts.hma,
            "plaintexts": facts.counts.plaintexts,
            "key_bytes": facts.key_bytes,
            "upload_bytes": facts.upload_bytes,
            "compile_seconds": self._seconds,
        }

    def evaluate(self, number: int) -> tuple[list[float], float]:
        scores, seconds = self._subject.classify(self._pixels[number])
        return scores.tolist(), seconds


if __name__ == "__main__":
    serve(Compiled)

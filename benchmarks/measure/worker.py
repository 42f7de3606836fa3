"""What a worker process of the service does, in a process of its own: load a model, load keys, evaluate once.

python -m benchmarks.measure.worker BUNDLE KEYS INPUTS [FOLDER]: says when it is ready, and then what memory it took.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.support.evaluating import Worker
from benchmarks.support.memory import peak_bytes, status_bytes
from heinfer.backends import NativeOptions
from heinfer.formats import bundle


def main(path: str, keys: str, inputs: str, folder: str = "") -> None:
    """Run, on one thread."""
    model = bundle.load(Path(path))
    worker = Worker(model, "native", NativeOptions(constants_folder=Path(folder) if folder else None))
    ready = _memory()
    print("ready", flush=True)
    result = worker.evaluate(Path(inputs).read_bytes(), Path(keys).read_bytes())
    print(json.dumps({"ready": ready, "evaluated": _memory(), "keys_seconds": result.keys_seconds}), flush=True)


def _memory() -> dict[str, int]:
    """Bytes: the most so far, those of the process alone, and those of files, which processes share."""
    return {"peak": peak_bytes(), "own": status_bytes("RssAnon"), "of_files": status_bytes("RssFile")}


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a worker process of the service does, in a process of its own: load a model, load keys, evaluate once.

python -m benchmarks.worker BUNDLE KEYS INPUTS [FOLDER]: says when it is ready, and then what memory it took.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.memory import peak_bytes, status_bytes
from heinfer.backends import NativeOptions
from heinfer.formats import bundle
from heinfer_server.evaluation.evaluator import Evaluator
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, Setup
from heinfer_server.keys.frame_file import FrameFile
from heinfer_server.models import ServedModel


def main(path: str, keys: str, inputs: str, folder: str = "") -> None:
    """Run, on one thread."""
    model = ServedModel.of(bundle.load(Path(path)))
    options = NativeOptions(constants_folder=Path(folder) if folder else None)
    evaluator = Evaluator(Setup((model,), "native", {model.digest: options}))
    ready = _memory()
    print("ready", flush=True)
    task = EvaluationTask(model.digest, "a", FrameFile.of(Path(keys).read_bytes()), Path(inputs).read_bytes())
    result = evaluator.run(task)
    assert isinstance(result, Evaluated), result
    print(json.dumps({"ready": ready, "evaluated": _memory(), "keys_seconds": result.keys_seconds}), flush=True)


def _memory() -> dict[str, int]:
    """Bytes: the most so far, those of the process alone, and those of files, which processes share."""
    return {"peak": peak_bytes(), "own": status_bytes("RssAnon"), "of_files": status_bytes("RssFile")}


if __name__ == "__main__":
    main(*sys.argv[1:])

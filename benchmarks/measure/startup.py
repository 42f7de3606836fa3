"""startup: how long a worker takes until it is ready, and what memory, with and without mapped constants."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import typer
from rich.progress import track

from benchmarks.support.options import Json
from benchmarks.support.records import Record, head, spread, write_table
from benchmarks.support.subject import Sender
from heinfer.formats import bundle
from heinfer_cli.models import bundle_file

NETWORKS = ("mnist-ffconv", "cifar-accurate")
ROUNDS = 3

_SHOWN = "network", "constants", "ready_seconds", "peak_memory_bytes", "own_memory_bytes", "file_memory_bytes"


def startup(
    json: Json,
    networks: Annotated[list[str] | None, typer.Option("--network", show_default=", ".join(NETWORKS))] = None,
) -> None:
    """Start workers on the native backend, one thread, and have each evaluate an image: constants encoded by each,
    encoded and written to a folder, mapped from there."""
    records = [record for name in networks or NETWORKS for record in _records(bundle_file(name))]
    write_table(records, _SHOWN, json)


def _records(path: Path) -> list[Record]:
    model = bundle.load(path)
    sender = Sender(model)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        keys, inputs = folder / "keys", folder / "inputs"
        keys.write_bytes(sender.keys)
        inputs.write_bytes(sender.inputs)
        runs: dict[str, list[dict[str, Any]]] = {"encoded by each": [], "encoded and written": [], "mapped": []}
        for number in track(range(ROUNDS), description=model.manifest.name):
            constants = folder / str(number)
            constants.mkdir()
            for way, where in zip(runs, ("", str(constants), str(constants)), strict=True):
                runs[way].append(_run(path, keys, inputs, where))
        written = next((folder / "0").iterdir()).stat().st_size
    return [_record(model.manifest.name, way, found, written) for way, found in runs.items()]


def _run(path: Path, keys: Path, inputs: Path, folder: str) -> dict[str, Any]:
    """Start a worker and wait for what it says."""
    command = [sys.executable, "-m", "benchmarks.measure.worker", str(path), str(keys), str(inputs), folder]
    started = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the worker did not start"
        seconds = perf_counter() - started
        told: dict[str, Any] = json.loads(process.stdout.readline())
    return told | {"seconds": seconds}


def _record(name: str, constants: str, runs: list[dict[str, Any]], written: int) -> Record:
    evaluated = [run["evaluated"] for run in runs]
    return head("startup", network=name, backend="native", threads=1, constants=constants) | {
        "constants_file_bytes": written,
        "ready_seconds": spread([run["seconds"] for run in runs]),
        "keys_seconds": spread([run["keys_seconds"] for run in runs]),
        "ready_own_memory_bytes": median(run["ready"]["own"] for run in runs),
        "peak_memory_bytes": median(memory["peak"] for memory in evaluated),
        "own_memory_bytes": median(memory["own"] for memory in evaluated),
        "file_memory_bytes": median(memory["of_files"] for memory in evaluated),
    }

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

from benchmarks.options import Json
from benchmarks.records import Record, save_records, show_table, spread
from benchmarks.samples import image_for
from heinfer.ckks.secret import SecretSide
from heinfer.formats import bundle
from heinfer.measurement.machine import describe_machine, today
from heinfer_cli.models import bundle_file
from heinfer_client.codec import Codec

NETWORKS = ("mnist-ffconv", "cifar-accurate")
ROUNDS = 3

_COLUMNS = {
    "network": "network",
    "constants": "constants",
    "ready_seconds": "ready after",
    "peak_memory_bytes": "peak memory",
    "own_memory_bytes": "of the process alone",
    "file_memory_bytes": "of files",
}


def startup(
    json: Json,
    networks: Annotated[list[str] | None, typer.Option("--network", show_default=", ".join(NETWORKS))] = None,
) -> None:
    """Start workers on the native backend, one thread, and have each evaluate an image: constants encoded by each,
    encoded and written to a folder, mapped from there."""
    records = [record for name in networks or NETWORKS for record in _records(bundle_file(name))]
    save_records(records, json)
    show_table(records, _COLUMNS, json)


def _records(path: Path) -> list[Record]:
    model = bundle.load(path)
    codec = Codec(model.manifest)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        keys, inputs = folder / "keys", folder / "inputs"
        secret = SecretSide.generate(codec.parameters)
        keys.write_bytes(codec.evaluation_keys(secret, lambda _done: None))
        inputs.write_bytes(codec.encrypt(secret, [codec.read_image(image_for(model.manifest))]))
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
    command = [sys.executable, "-m", "benchmarks.worker", str(path), str(keys), str(inputs), folder]
    started = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the worker did not start"
        seconds = perf_counter() - started
        told: dict[str, Any] = json.loads(process.stdout.readline())
    return told | {"seconds": seconds}


def _record(name: str, constants: str, runs: list[dict[str, Any]], written: int) -> Record:
    evaluated = [run["evaluated"] for run in runs]
    return {
        "benchmark": "startup",
        "network": name,
        "backend": "native",
        "threads": 1,
        "constants": constants,
        "constants_file_bytes": written,
        "ready_seconds": spread([run["seconds"] for run in runs]),
        "keys_seconds": spread([run["keys_seconds"] for run in runs]),
        "ready_own_memory_bytes": median(run["ready"]["own"] for run in runs),
        "peak_memory_bytes": median(memory["peak"] for memory in evaluated),
        "own_memory_bytes": median(memory["own"] for memory in evaluated),
        "file_memory_bytes": median(memory["of_files"] for memory in evaluated),
        "machine": describe_machine(),
        "date": today(),
    }

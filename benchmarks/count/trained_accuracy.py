"""trained-accuracy: what every trained network in a folder says of itself, and its accuracy on the test images."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.support.networks import labelled_images
from benchmarks.support.options import Json
from benchmarks.support.records import Record, write_table
from heinfer.zoo.checkpoint import read_metadata
from heinfer.zoo.measure import evaluate
from heinfer.zoo.reference import training_command
from heinfer.zoo.registry import reference
from heinfer.zoo.training import load
from heinfer_cli.options import DataDir

_SHOWN = "network", "command", "test_accuracy", "held_out_accuracy", "seconds"


def trained_accuracy(
    folder: Annotated[Path, typer.Argument(help="With checkpoints of `heinfer train`, in folders or not.")],
    json: Json,
    data_dir: DataDir = None,
) -> None:
    """Evaluate trained networks in cleartext, on all test images."""
    records = [_record(path, data_dir) for path in track(sorted(folder.rglob("*.safetensors")), description="trained")]
    write_table(records, _SHOWN, json)


def _record(path: Path, data_dir: Path | None) -> Record:
    about = read_metadata(path)
    test = labelled_images(reference(about.name).data.shape, data_dir)
    held_out: Record = {} if about.held_out_accuracy is None else {"held_out_accuracy": about.held_out_accuracy}
    record: Record = {
        "benchmark": "trained-accuracy",
        "network": about.name,
        "command": training_command(about),
        "recipe": about.recipe,
        "device": about.device,
        "images": about.images,
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "test_accuracy": evaluate(load(about.name, path), test.images, test.labels),
        "seconds": round(about.seconds),
    }
    return record | held_out

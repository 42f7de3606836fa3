"""trained: what every trained network in a folder says, and how many of the test images it classifies as labelled."""

from __future__ import annotations

import json as json_format
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.options import Json
from benchmarks.records import Record, save_records, show_table
from heinfer.formats import bundle
from heinfer.zoo import BUNDLES
from heinfer.zoo.checkpoint import read_metadata
from heinfer.zoo.cifar import cifar10_test
from heinfer.zoo.data import MNIST, mnist_test
from heinfer.zoo.measure import evaluate
from heinfer.zoo.reference import training_command
from heinfer.zoo.registry import reference
from heinfer.zoo.training import load
from heinfer_cli.options import DataDir

RESULTS = Path("benchmarks/results/trained.json")

_COLUMNS = {
    "network": "network",
    "command": "command",
    "device": "device",
    "test_accuracy": "test",
    "held_out_accuracy": "held out",
    "seconds": "s",
}


def trained(
    folder: Annotated[Path, typer.Argument(help="With checkpoints of `heinfer train`, in folders or not.")],
    json: Json,
    data_dir: DataDir = None,
) -> None:
    """Evaluate trained networks in cleartext, on all test images."""
    records = [_record(path, data_dir) for path in track(sorted(folder.rglob("*.safetensors")), description="trained")]
    save_records(records, json)
    show_table(records, _COLUMNS, json)


def _record(path: Path, data_dir: Path | None) -> Record:
    about = read_metadata(path)
    test = (mnist_test if reference(about.name).data == MNIST else cifar10_test)(data_dir)
    held_out: Record = {} if about.held_out_accuracy is None else {"held_out_accuracy": about.held_out_accuracy}
    record: Record = {
        "benchmark": "trained",
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


def accuracies(network: str, results: Path = RESULTS) -> Record:
    """What is known of a network: of its own recipe, all images trained on; else of the brief one; and held out."""
    shipped = BUNDLES / f"{network}.heinfer"
    if shipped.exists():
        return {"accuracy": float(bundle.load(shipped).metadata["test accuracy"]), "recipe": "own"}
    found = [r for r in json_format.loads(results.read_text()) if r["network"] == network] if results.exists() else []
    for recipe in ("own", "brief"):
        of = [r for r in found if ("--brief" in r["command"]) == (recipe == "brief")]
        if of:
            whole = [r for r in of if "held_out_accuracy" not in r]
            held = [r for r in of if "held_out_accuracy" in r]
            known: Record = {"accuracy": whole[0]["test_accuracy"]} if whole else {}
            return known | ({"held_out_accuracy": held[0]["held_out_accuracy"]} if held else {}) | {"recipe": recipe}
    return {}

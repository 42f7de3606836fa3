"""sweep: what the rank of the factorization, a batch, and limits on keys and upload change, as predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track
from torch import nn

from benchmarks.support.networks import RANDOM, compile_on_digits, labelled_images, random_module
from benchmarks.support.options import Json
from benchmarks.support.records import Record, circuit_record, head, save_records, write_table
from heinfer.convert import factorize
from heinfer.planner.requirements import Limits, Requirements
from heinfer.zoo.data import MNIST
from heinfer.zoo.measure import evaluate
from heinfer.zoo.reference import REQUIREMENTS
from heinfer.zoo.training import load
from heinfer_cli.options import DataDir

NETWORK, UNFACTORIZED = "mnist-ffconv", "mnist-plain"
RANKS = (1, 2, 4, 8, 16)
BATCHES = (1, 4, 16, 64, 256)
KEY_LIMITS = (inf, 9e6, 8e6, 7e6, 6e6, 5e6)

_SHOWN = "curve", "rank", "batch", "rotations", "keys", "key_bytes", "predicted_ratio_to_seal_rotation", "accuracy"

Case = tuple[nn.Module, Requirements, Record]
"""One point of a curve: a network, what is required of its plan, and what else its record says."""


def sweep(
    json: Json,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"{UNFACTORIZED} as trained, for the accuracy at every rank.",
            show_default="random weights, and no accuracy",
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Compile for ranks, batches, limits on keys and on the upload; count, and predict the time on SEAL.

    Counts do not depend on weights. Records are written as they come.
    """
    records: list[Record] = []
    for module, requirements, facts in track([*_limited(), *_factorized(checkpoint, data_dir)], description="sweeping"):
        records.append(head("sweep", network=NETWORK) | facts | _counted(module, requirements))
        save_records(records, json)
    write_table(records, _SHOWN, json)


def _limited() -> Iterator[Case]:
    """The network in batches and under limits. A batch may upload for each image what one image may."""
    limit = REQUIREMENTS.limits.upload_bytes
    network = random_module(NETWORK)

    def point(curve: str, requirements: Requirements) -> Case:
        return network, requirements, {"curve": curve, "weights": RANDOM}

    for batch in BATCHES:
        yield point("batch", replace(REQUIREMENTS, batch=batch, limits=Limits(upload_bytes=batch * limit)))
    for most in KEY_LIMITS:
        yield point("key limit", replace(REQUIREMENTS, limits=replace(REQUIREMENTS.limits, key_bytes=most)))
    for most in (limit, inf):
        yield point("upload limit", replace(REQUIREMENTS, limits=Limits(upload_bytes=most)))


def _factorized(checkpoint: Path | None, data_dir: Path | None) -> Iterator[Case]:
    """The unfactorized network, and its factorization at every rank, not trained any further."""
    whole = load(UNFACTORIZED, checkpoint) if checkpoint else random_module(UNFACTORIZED)
    test = labelled_images(MNIST.shape, data_dir) if checkpoint else None
    for rank in (*RANKS, None):
        module = factorize(whole, rank=rank) if rank else whole
        facts: Record = {
            "curve": "rank",
            "weights": "trained" if checkpoint else RANDOM,
            "rank": rank or "not factorized",
        }
        yield (
            module,
            REQUIREMENTS,
            facts | ({"accuracy": evaluate(module, test.images, test.labels)} if test else {}),
        )


def _counted(module: nn.Module, requirements: Requirements) -> Record:
    model = compile_on_digits(module, NETWORK, requirements)
    batch, limits = model.plan.batch, requirements.limits
    return (
        {"batch": batch}
        | circuit_record(model.plan, model.bundle.circuit)
        | {
            "max_key_bytes": _limit(limits.key_bytes),
            "max_upload_bytes": _limit(limits.upload_bytes),
        }
    )


def _limit(most: float) -> float | str:
    return "none" if most == inf else most

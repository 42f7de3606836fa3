"""sweep: one network planned under several wishes (batch, limits on keys and upload), predicted and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track

import heinfer
from benchmarks.evaluations import Evaluations
from benchmarks.options import Json
from benchmarks.records import Record, plan_record, save_records, seconds_of, show_table
from heinfer.calibration.machine import describe_machine, today
from heinfer.cli.options import DataDir
from heinfer.compiler import CompiledModel
from heinfer.planner.cost import cost_table
from heinfer.planner.objective import Limits, Wishes
from heinfer.zoo import digits
from heinfer.zoo.data import normalise
from heinfer.zoo.reference import WISHES, compile_reference, mnist_preprocessing
from heinfer.zoo.registry import reference

NETWORK = "mnist-ffconv"
BATCHES = (1, 4, 16, 64, 256)
KEY_LIMITS = (inf, 20e6, 18e6, 16e6, 14e6, 12e6, 10e6)
EVALUATIONS = 5
"""Of each plan, after one that fills the caches."""
SEED = 0

_COLUMNS = {
    "curve": "curve",
    "batch": "batch",
    "max_key_bytes": "key limit",
    "max_upload_bytes": "upload limit",
    "rotations": "rotations",
    "keys": "keys",
    "upload_bytes_an_image": "bytes up an image",
    "ratio_to_seal_rotation": "in rotations",
    "predicted_ratio_to_seal_rotation": "predicted",
    "images_per_second": "images/s",
    "ratio_to_batch_1": "to batch 1",
}


def sweep(
    json: Json,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"{NETWORK} as trained.", show_default="random weights: times are the same"),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Plan for batches, limits on keys and limits on the upload, and time every plan beside that of one image.

    Figures derived from times are of those for which the thread has the processor.
    """
    weights = "trained" if checkpoint else f"random, seed {SEED}"
    compile_with = partial(compile_reference, NETWORK, checkpoint, data_dir) if checkpoint else _compile_random
    records: list[Record] = []
    for record in _measured(compile_with):
        records.append(record | {"weights": weights, "machine": describe_machine(), "date": today()})
        save_records(records, json)
    show_table(records, _COLUMNS, json)


def _compile_random(wishes: Wishes) -> CompiledModel:
    """The network with random weights, calibrated on the digits that ship with heinfer."""
    torch.manual_seed(SEED)
    images = normalise(digits().images).astype(np.float64)
    return heinfer.compile(
        reference(NETWORK).build(), images, name=NETWORK, preprocessing=mnist_preprocessing(), wishes=wishes
    )


def _cases() -> Iterator[tuple[str, Wishes]]:
    """The points of every curve. A batch may upload for each image what one image may."""
    limit = WISHES.limits.upload_bytes
    for batch in BATCHES:
        yield "batch", replace(WISHES, batch=batch, limits=Limits(upload_bytes=batch * limit))
    for most in KEY_LIMITS:
        yield "key limit", replace(WISHES, limits=replace(WISHES.limits, key_bytes=most))
    for most in (limit, inf):
        yield "upload limit", replace(WISHES, limits=Limits(upload_bytes=most))


def _measured(compile_with: Callable[[Wishes], CompiledModel]) -> Iterator[Record]:
    """A record for each point; points of equal wishes share a measurement. The first point is that of one image."""
    single: Evaluations | None = None
    known: dict[Wishes, Record] = {}
    for curve, wishes in track(list(_cases()), description="sweeping"):
        if wishes not in known:
            started = perf_counter()
            model = compile_with(wishes)
            compiled = perf_counter() - started
            evaluations = Evaluations(model.bundle)
            single = single or evaluations
            _evaluate(evaluations, single)
            known[wishes] = _record(model, wishes, evaluations, single) | {"compile_seconds": round(compiled, 2)}
        yield known[wishes] | {"curve": curve}


def _evaluate(evaluations: Evaluations, single: Evaluations) -> None:
    """Both in turn: machines are noisy, and change."""
    runs = list(dict.fromkeys([single, evaluations]))
    for run in runs:
        run.warm_up()
    for _ in range(EVALUATIONS):
        for run in runs:
            run.add()


def _record(model: CompiledModel, wishes: Wishes, evaluations: Evaluations, single: Evaluations) -> Record:
    facts, batch = model.report, model.plan.batch
    seconds, rotation = median(evaluations.cpu), median(evaluations.rotations)
    predicted_rotation = cost_table(facts.ring_degree)("rotation", model.plan.parameters.top_level)
    return plan_record("sweep", model.bundle) | {
        "batch": batch,
        "max_key_bytes": _limit(wishes.limits.key_bytes),
        "max_upload_bytes": _limit(wishes.limits.upload_bytes),
        "keys": facts.key_count,
        "upload_bytes_an_image": round(facts.upload_bytes / batch),
        "key_bytes_an_image": round(facts.key_bytes / batch),
        "eval_seconds": seconds_of(evaluations.wall),
        "eval_cpu_seconds": seconds_of(evaluations.cpu),
        "seal_rotation_cpu_seconds": seconds_of(evaluations.rotations),
        "ratio_to_seal_rotation": round(seconds / rotation, 2),
        "predicted_milliseconds": round(facts.milliseconds, 1),
        "predicted_ratio_to_seal_rotation": round(facts.milliseconds / predicted_rotation, 2),
        "images_per_second": round(batch / seconds, 3),
        "ratio_to_batch_1": round(batch * median(single.cpu) / seconds, 3),
    }


def _limit(most: float) -> float | str:
    return "none" if most == inf else most

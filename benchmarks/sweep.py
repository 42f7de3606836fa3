"""sweep: what the rank of the factorization, a batch, and limits on keys and upload change, predicted and measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from torch import nn

import heinfer
from benchmarks.evaluations import Evaluations
from benchmarks.options import Json
from benchmarks.records import Record, plan_record, save_records, show_table, spread
from heinfer.compiler.compile import CompiledModel
from heinfer.convert import factorize
from heinfer.costs.tables import cost_table
from heinfer.measurement.machine import describe_machine, today
from heinfer.planner.requirements import Limits, Requirements
from heinfer.zoo import digits
from heinfer.zoo.data import MNIST, mnist_test, normalise
from heinfer.zoo.measure import evaluate
from heinfer.zoo.reference import REQUIREMENTS, preprocessing
from heinfer.zoo.registry import reference
from heinfer.zoo.training import load
from heinfer_cli.options import DataDir

NETWORK, UNFACTORIZED = "mnist-ffconv", "mnist-plain"
RANKS = (1, 2, 4, 8, 16)
BATCHES = (1, 4, 16, 64, 256)
KEY_LIMITS = (inf, 9e6, 8e6, 7e6, 6e6, 5e6, 4e6)
EVALUATIONS = 5
"""Of each plan, after one that fills the caches."""
SEED = 0

_COLUMNS = {
    "curve": "curve",
    "rank": "rank",
    "accuracy": "accuracy",
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
        typer.Option(
            metavar="FILE",
            help=f"{UNFACTORIZED} as trained, for the accuracy at every rank.",
            show_default="random weights, and no accuracy",
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Plan for ranks, batches, limits on keys and on the upload, and time every plan beside that of one image.

    Times do not depend on weights. Figures derived from times are of those for which the thread has the processor.
    """
    records: list[Record] = []
    for record in _measured(_cases(_factorized(checkpoint, data_dir))):
        records.append(record | {"machine": describe_machine(), "date": today()})
        save_records(records, json)
    show_table(records, _COLUMNS, json)


@dataclass(frozen=True, eq=False)
class Case:
    """One point of a curve: a network, what is required of its plan, and what else its record says."""

    curve: str
    requirements: Requirements
    facts: Record
    module: nn.Module

    def compile(self) -> CompiledModel:
        """The network, calibrated on the digits that ship with heinfer."""
        images = normalise(digits().images).astype(np.float64)
        return heinfer.compile(
            self.module, images, name=NETWORK, preprocessing=preprocessing(MNIST), requirements=self.requirements
        )


def _factorized(checkpoint: Path | None, data_dir: Path | None) -> Iterator[tuple[nn.Module, Record]]:
    """The unfactorized network, and its factorization at every rank, not trained any further."""
    torch.manual_seed(SEED)
    whole = load(UNFACTORIZED, checkpoint) if checkpoint else reference(UNFACTORIZED).build().eval()
    images = mnist_test(data_dir) if checkpoint else None
    for rank in (*RANKS, None):
        module = factorize(whole, rank=rank) if rank else whole
        facts: Record = {
            "rank": rank or "not factorized",
            "weights": "trained" if checkpoint else f"random, seed {SEED}",
        }
        yield module, facts | ({"accuracy": evaluate(module, images.images, images.labels)} if images else {})


def _cases(factorized: Iterator[tuple[nn.Module, Record]]) -> Iterator[Case]:
    """The points of every curve. A batch may upload for each image what one image may."""
    limit = REQUIREMENTS.limits.upload_bytes
    torch.manual_seed(SEED)
    network = reference(NETWORK).build().eval()
    random: Record = {"weights": f"random, seed {SEED}"}
    for batch in BATCHES:
        yield Case(
            "batch", replace(REQUIREMENTS, batch=batch, limits=Limits(upload_bytes=batch * limit)), random, network
        )
    for most in KEY_LIMITS:
        yield Case(
            "key limit", replace(REQUIREMENTS, limits=replace(REQUIREMENTS.limits, key_bytes=most)), random, network
        )
    for most in (limit, inf):
        yield Case("upload limit", replace(REQUIREMENTS, limits=Limits(upload_bytes=most)), random, network)
    for module, facts in factorized:
        yield Case("rank", REQUIREMENTS, facts, module)


def _measured(cases: Iterable[Case]) -> Iterator[Record]:
    """A record for each case; cases of equal requirements share a measurement. The first is that of one image."""
    single: Evaluations | None = None
    known: dict[tuple[nn.Module, Requirements], Record] = {}
    for case in track(list(cases), description="sweeping"):
        if (case.module, case.requirements) not in known:
            started = perf_counter()
            model = case.compile()
            compiled = perf_counter() - started
            evaluations = Evaluations(model.bundle)
            single = single or evaluations
            _evaluate(evaluations, single)
            record = _record(model, case.requirements, evaluations, single) | {"compile_seconds": round(compiled, 2)}
            known[case.module, case.requirements] = record
        yield known[case.module, case.requirements] | case.facts | {"curve": case.curve}


def _evaluate(evaluations: Evaluations, single: Evaluations) -> None:
    """Both in turn: machines are noisy, and change."""
    runs = list(dict.fromkeys([single, evaluations]))
    for run in runs:
        run.warm_up()
    for _ in range(EVALUATIONS):
        for run in runs:
            run.add()


def _record(model: CompiledModel, requirements: Requirements, evaluations: Evaluations, single: Evaluations) -> Record:
    facts, batch = model.report, model.plan.batch
    seconds, rotation = median(evaluations.cpu), median(evaluations.rotations)
    predicted_rotation = cost_table(facts.parameters.ring_degree)("rotation", model.plan.parameters.top_level)
    return plan_record("sweep", model.bundle) | {
        "batch": batch,
        "max_key_bytes": _limit(requirements.limits.key_bytes),
        "max_upload_bytes": _limit(requirements.limits.upload_bytes),
        "keys": facts.key_count,
        "upload_bytes_an_image": round(facts.upload_bytes / batch),
        "key_bytes_an_image": round(facts.key_bytes / batch),
        "eval_seconds": spread(evaluations.wall),
        "eval_cpu_seconds": spread(evaluations.cpu),
        "seal_rotation_cpu_seconds": spread(evaluations.rotations),
        "ratio_to_seal_rotation": round(seconds / rotation, 2),
        "predicted_milliseconds": round(facts.predicted["tenseal"], 1),
        "predicted_ratio_to_seal_rotation": round(facts.predicted["tenseal"] / predicted_rotation, 2),
        "images_per_second": round(batch / seconds, 3),
        "ratio_to_batch_1": round(batch * median(single.cpu) / seconds, 3),
    }


def _limit(most: float) -> float | str:
    return "none" if most == inf else most

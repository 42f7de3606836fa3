"""latency: one image at a time, beside rotations of SEAL in the same run, and over HTTP."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from numpy.typing import NDArray
from rich.progress import track

from benchmarks.options import Json, Network
from benchmarks.records import plan_record, seconds_of, write_records
from benchmarks.rotation import Rotation
from benchmarks.subject import Subject
from heinfer.cli.local_server import local_server
from heinfer.cli.models import bundle_file
from heinfer.formats import bundle
from heinfer.zoo import digits
from heinfer_client import Client

EVALUATIONS = 12
REQUESTS = 6


def latency(json: Json, network: Network = "mnist-ffconv") -> None:
    """Time one image: evaluation in SEAL rotations, and what HTTP, encryption and decryption add."""
    path = bundle_file(network)
    model = bundle.load(path)
    image = digits().images[0]
    evaluations, rotations = _interleaved(Subject(model), image)
    overheads = _http_overheads(path, model.manifest.name, image)
    record = plan_record("latency", model) | {
        "eval_seconds": seconds_of(evaluations),
        "seal_rotation_seconds": seconds_of(rotations),
        "ratio_to_seal_rotation": round(median(evaluations) / median(rotations), 2),
        "http_second_request_overhead_seconds": overheads[1],
        "http_overhead_seconds": seconds_of(overheads[1:]),
    }
    write_records([record], json)


def _interleaved(subject: Subject, image: NDArray[Any]) -> tuple[list[float], list[float]]:
    """Seconds of evaluations, and of rotations right before and after each: machines are noisy, and change."""
    rotation = Rotation(subject)
    subject.classify(image)  # loads the keys
    evaluations, rotations = [], []
    for _ in track(range(EVALUATIONS), description="evaluating"):
        rotations.append(rotation.seconds())
        evaluations.append(subject.classify(image)[1])
        rotations.append(rotation.seconds())
    return evaluations, rotations


def _http_overheads(path: Path, name: str, image: NDArray[Any]) -> list[float]:
    """Seconds of each request but for the evaluation: packing, encryption, transport, checks and decryption."""
    overheads = []
    with local_server(path) as url, Client(url, model=name) as client:
        client.prepare()
        for _ in track(range(REQUESTS), description="requesting"):
            started = perf_counter()
            prediction = client.encrypt_and_predict(image)
            overheads.append(perf_counter() - started - prediction.server_seconds)
    return overheads

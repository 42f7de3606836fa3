"""latency: one image at a time, beside rotations of SEAL in the same run, and over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import typer
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.support.memory import peak_bytes
from benchmarks.support.networks import RANDOM, compile_on_digits, random_module
from benchmarks.support.options import Backend, Json, Network
from benchmarks.support.records import Record, plan_record, spread, write_records
from benchmarks.support.samples import image_for
from benchmarks.support.subject import Subject
from benchmarks.support.timing import seal_rotation
from heinfer.backends import BACKENDS, choose_backend
from heinfer.baselines.names import Policy
from heinfer.baselines.planning import planner_of
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer.planner.requirements import NO_LIMITS
from heinfer.zoo.reference import REQUIREMENTS, compile_reference
from heinfer_cli.local_server import local_server
from heinfer_cli.models import bundle_file
from heinfer_cli.options import DataDir
from heinfer_client import Client

EVALUATIONS = 12
ROTATIONS = 20
"""At least so many of SEAL, however few the evaluations."""
REQUESTS = 6


def latency(
    json: Json,
    network: Network = "mnist-ffconv",
    backend: Backend = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of one evaluation.", show_default="1, and 2 on native")
    ] = None,
    policy: Annotated[
        Policy | None,
        typer.Option(
            help="Compile the reference network anew under a policy, for any upload.", show_default="as it ships"
        ),
    ] = None,
    evaluations: Annotated[int, typer.Option(min=1, help="Timed, after one that loads the keys.")] = EVALUATIONS,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The network as trained, for --policy.", show_default="random weights"),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Time one image on every backend in turn: evaluation in SEAL rotations, and what HTTP and encryption add.

    Under a policy, evaluation alone is timed: it may take minutes, and HTTP does not depend on the policy.
    """
    ways = [(b, t) for b in _backends(backend) for t in _threads(b, threads)]
    if policy is None:
        path = bundle_file(network)
        model = bundle.load(path)
        records = _evaluated(model, evaluations, ways)
        records = [
            record | _requested(path, model.manifest.name, *way) for record, way in zip(records, ways, strict=True)
        ]
    else:
        weights = "trained" if checkpoint else RANDOM
        compiled = _compiled(network, policy, checkpoint, data_dir)
        records = [record | {"weights": weights} for record in _evaluated(compiled, evaluations, ways)]
    write_records(records, json)


def _backends(wanted: str | None) -> list[str]:
    return [choose_backend(wanted)] if wanted else [b for b in BACKENDS if b != "native" or choose_backend() == b]


def _threads(backend: str, wanted: int | None) -> tuple[int, ...]:
    if backend != "native":
        return (1,)
    return (wanted,) if wanted else (1, 2)


def _compiled(network: str, policy: Policy, checkpoint: Path | None, data_dir: Path | None) -> Bundle:
    """A reference network under a policy, with as many input ciphertexts as that takes, or as save time."""
    requirements, planner = replace(REQUIREMENTS, limits=NO_LIMITS), planner_of(policy)
    if checkpoint:
        return compile_reference(network, checkpoint, data_dir, requirements, planner).bundle
    return compile_on_digits(random_module(network), network, requirements, planner).bundle


def _evaluated(model: Bundle, number: int, ways: Sequence[tuple[str, int]]) -> list[Record]:
    subjects = [Subject(model, *way) for way in ways]
    evaluations, rotations = _interleaved(subjects, image_for(model.manifest), number)
    return [
        plan_record("latency", model, subject.backend, subject.threads, subject.worker.rotations_hoisted)
        | {
            "eval_seconds": spread(seconds),
            "seal_rotation_seconds": spread(rotations),
            "ratio_to_seal_rotation": round(median(seconds) / median(rotations), 2),
            "process_peak_bytes": peak_bytes(),  # keys, client's half and all: of every backend that was timed
        }
        for subject, seconds in zip(subjects, evaluations, strict=True)
    ]


def _requested(path: Path, name: str, backend: str, threads: int) -> Record:
    overheads = _http_overheads(path, name, image_for(bundle.load(path).manifest), backend, threads)
    return {
        "http_second_request_overhead_seconds": overheads[1],
        "http_overhead_seconds": spread(overheads[1:]),
    }


def _interleaved(
    subjects: Sequence[Subject], image: NDArray[Any], number: int
) -> tuple[list[list[float]], list[float]]:
    """Seconds of evaluations, and of rotations around all of them: machines are noisy, and change."""
    rotation = seal_rotation(subjects[0].codec.parameters)
    for subject in subjects:
        subject.classify(image)  # loads the keys
    evaluations: list[list[float]] = [[] for _ in subjects]
    a_side = ceil(ROTATIONS / (2 * number))
    for _ in track(range(number), description="evaluating"):
        for _ in range(a_side):
            rotation.run()
        for subject, seconds in zip(subjects, evaluations, strict=True):
            seconds.append(subject.classify(image)[1])
        for _ in range(a_side):
            rotation.run()
    return evaluations, rotation.wall


def _http_overheads(path: Path, name: str, image: NDArray[Any], backend: str, threads: int) -> list[float]:
    """Seconds of each request but for the evaluation: packing, encryption, transport, checks and decryption."""
    overheads = []
    with local_server(path, backend, threads) as url, Client(url, model=name) as client:
        client.prepare()
        for _ in track(range(REQUESTS), description="requesting"):
            started = perf_counter()
            prediction = client.encrypt_and_predict(image)
            overheads.append(perf_counter() - started - prediction.server_seconds)
    return overheads

"""foreign-encrypted: networks of polynomials encrypted, beside themselves in cleartext and what they were before.

The inputs of a network are declared as values between the least and the largest of its training inputs, and test inputs
are clipped to that before anything is made of them: cleartext, noise and encryption have the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track

import heinfer
from benchmarks.foreign.data import Examples
from benchmarks.foreign.registry import FOREIGN, Foreign, foreign
from benchmarks.foreign.training import accuracy, default_folder, load
from benchmarks.foreign.tuned import Tuned, polynomialized
from benchmarks.measure.accuracy import EXEMPT_MARGIN, EXEMPT_SHARE
from benchmarks.support.options import Backend, Json
from benchmarks.support.records import Record, known_records, plan_record, save_records, spread, write_table
from benchmarks.support.resumable import ImageResult, ResultsFile
from benchmarks.support.subject import Subject
from heinfer.backends import choose_backend
from heinfer.compiler.model import CompiledModel
from heinfer.tell import say_nothing
from heinfer_cli.comparison import precision_bits
from heinfer_server.models import digest_of

CALIBRATION = 256
"""Training inputs that a network is compiled with."""
_SHOWN = (
    "network", "depth", "accuracy_original", "accuracy", "accuracy_noisy", "images", "accuracy_encrypted", "agreements",
    "precision_bits_min", "eval_seconds",
)  # fmt: skip

Array = NDArray[np.float64]


def foreign_encrypted(
    json: Json,
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this one; records of others stay.", show_default="all"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the networks.", show_default="in your cache")] = None,
    images: Annotated[int, typer.Option(min=1, help="Test inputs that are encrypted, the first.")] = 100,
    backend: Backend = None,
) -> None:
    """Run networks that polynomialize has made encrypted, and compare labels and accuracy with cleartext.

    Goes on where it was interrupted. Fails when an input that is not exempt has another label than in cleartext, or
    more than one in a hundred is exempt.
    """
    records = {str(record["network"]): record for record in known_records(json)}
    for one in map(foreign, network or FOREIGN):
        record = _record(one, out or default_folder(), json, images, choose_backend(backend))
        records[one.name] = record
        save_records(list(records.values()), json)
    write_table(list(records.values()), _SHOWN, json)
    if any(fails(record) for record in records.values()):
        raise typer.Exit(1)


def fails(record: Record) -> bool:
    """Whether labels differ where they must not."""
    number, agree, exempt = (int(str(record[key])) for key in ("images", "agreements", "exempted"))
    return agree + exempt < number or exempt > EXEMPT_SHARE * number


def _record(network: Foreign, folder: Path, json: Path, images: int, backend: str) -> Record:
    tuned = polynomialized(network, folder, say_nothing)
    task = network.task()
    low, high = float(task.train.inputs.min()), float(task.train.inputs.max())
    test = Examples(task.test.inputs.clamp(low, high), task.test.labels)
    began = perf_counter()
    model = _compiled(network, tuned, task.train.inputs[:CALIBRATION].double().numpy(), low, high)
    compile_seconds = perf_counter() - began
    inputs, labels = test.inputs.double().numpy(), test.labels.numpy()
    simulated = model.simulate_many(inputs)
    results = _encrypted(model, inputs[:images], json, backend)
    original = load(network.name, folder)
    first = Examples(test.inputs[:images], test.labels[:images])
    report = tuned.report
    return plan_record("foreign-encrypted", model.bundle, backend) | {
        "degrees": " ".join(str(row.degree) for row in report.activations),
        "depth": report.depth,
        "test_inputs": len(test),
        "accuracy_original": accuracy(original, test),
        "accuracy": accuracy(tuned.module, test),
        "accuracy_noisy": _right(simulated.noisy, labels),
        "images": images,
        "accuracy_original_of_images": accuracy(original, first),
        "accuracy_cleartext_of_images": _right(simulated.scores[:images], labels[:images]),
        "accuracy_encrypted": _right(np.array([r.scores for r in results]), labels[:images]),
        "agreements": sum(r.agrees and not r.exempt for r in results),
        "exempted": sum(r.exempt for r in results),
        "precision_bits_min": round(min(r.bits for r in results), 2),
        "precision_bits_predicted": float(str(model.report.precision).split()[0]),
        "compile_seconds": round(compile_seconds, 1),
        "eval_seconds": spread([r.seconds for r in results]),
    }


def _compiled(network: Foreign, tuned: Tuned, calibration: Array, low: float, high: float) -> CompiledModel:
    channels = calibration.shape[1] if calibration.ndim > 2 else 1
    values = heinfer.Preprocessing(
        divisor=1, mean=(0,) * channels, std=(1,) * channels, low=low, high=high, kind="values"
    )
    with torch.no_grad():
        classes = tuned.module(torch.from_numpy(calibration[:1]).float()).shape[1]
    labels = tuple(f"class {number}" for number in range(classes))
    return heinfer.compile(
        tuned.module,
        calibration,
        name=network.name,
        preprocessing=values,
        labels=labels,
    )


@dataclass(frozen=True)
class Decrypted(ImageResult):
    """One input, with the scores that were decrypted."""

    scores: list[float]


def _encrypted(model: CompiledModel, inputs: Array, json: Path, backend: str) -> list[Decrypted]:
    file = ResultsFile(
        json.with_name(f"{json.name}.{model.manifest.name}.partial"),
        f"{digest_of(model.manifest)} {backend} {len(inputs)}",
        Decrypted,
    )
    missing = [number for number in range(len(inputs)) if number not in file.done]
    subject = Subject(model.bundle, backend) if missing else None
    for number in track(missing, description=f"{model.manifest.name} encrypted "):
        assert subject is not None
        scores, seconds = subject.classify(inputs[number])
        file.add(_compared(number, scores, model(inputs[number : number + 1])[0], seconds))
    results = [file.done[number] for number in range(len(inputs))]
    file.remove()
    return results


def _compared(number: int, decrypted: Array, cleartext: Array, seconds: float) -> Decrypted:
    second, first = np.sort(cleartext)[-2:]
    return Decrypted(
        image=number,
        agrees=bool(decrypted.argmax() == cleartext.argmax()),
        exempt=bool(first - second < EXEMPT_MARGIN * np.abs(cleartext).max()),
        bits=precision_bits(decrypted, cleartext),
        seconds=seconds,
        scores=decrypted.tolist(),
    )


def _right(scores: Array, labels: NDArray[np.int64]) -> float:
    return float((scores.argmax(1) == labels).mean())

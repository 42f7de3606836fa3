"""precision: bits of the scores that are right, of the worst of 200 images, beside what compiling predicted.

The rule, fixed beforehand: 200 images that calibration has not seen, 50 under each of four new secret keys, of every
model that ships and of the small networks of benchmarks.support.foreign. Precision is -log2(error / size), sizes being
those of heinfer.circuit.precision. Wanted: predictions no more than two bits below what is measured, half a bit above.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.support.foreign import CALIBRATION, FOREIGN
from benchmarks.support.networks import labelled_images, shipped
from benchmarks.support.options import Backend, Json
from benchmarks.support.records import Record, known_records, plan_record, save_records, write_table
from benchmarks.support.resumable import ResultsFile
from benchmarks.support.subject import Subject
from heinfer.backends import choose_backend
from heinfer.circuit.precision import WORST_OF, Scores, sizes
from heinfer.circuit.statistics import MARGIN, observe
from heinfer.compiler.precision import predict_precision
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer.planner.requirements import Requirements
from heinfer.zoo.reference import calibration_inputs
from heinfer_cli.comparison import cleartext_scores

KEYS = 4
TOO_LOW, TOO_HIGH = -2.0, 0.5
"""Bits between which a prediction may differ from what is measured."""

_SHOWN = "network", "backend", "images", "bits_predicted", "bits_measured", "difference", "noisiest"
_FOREIGN = {one.name: one for one in FOREIGN}


@dataclass(frozen=True)
class Outcome:
    """The largest error of an image's scores."""

    image: int
    error: float


def precision(
    json: Json,
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this one; records of others stay.", show_default="all"),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images that are encrypted.")] = WORST_OF,
    backend: Backend = None,
) -> None:
    """Compare the predicted precision of the worst of 200 images with what is measured.

    Goes on where it was interrupted. Fails when a prediction is more than 2 bits too low, or half a bit too high.
    """
    chosen = choose_backend(backend)
    records = {(record["network"], record["backend"]): record for record in known_records(json)}
    for name in network or [*(path.stem for path in shipped()), *_FOREIGN]:
        records[name, chosen] = _record(name, json, images, chosen)
        save_records(list(records.values()), json)
    write_table(list(records.values()), _SHOWN, json)
    if any(fails(record) for record in records.values()):
        raise typer.Exit(1)


def fails(record: Record) -> bool:
    """Whether a prediction is further off than it may be."""
    difference = record["difference"]
    assert isinstance(difference, float)
    return not TOO_LOW <= difference <= TOO_HIGH


def _record(name: str, json: Path, count: int, backend: str) -> Record:
    model, calibration, images = _subject(name, count)
    manifest = model.manifest
    digest = sha256(bundle.to_bytes(model)).hexdigest()
    file = ResultsFile(json.with_name(f"{json.name}.{name}.{backend}.partial"), f"{digest} {count}", Outcome)
    exact = cleartext_scores(model, list(images))
    for outcome in _outcomes(model, images, exact, file.done.keys(), backend):
        file.add(outcome)
    errors = np.array([file.done[number].error for number in range(count)])
    worst = float((errors / sizes(exact, manifest.output.kind == "classification")).max())
    packed = manifest.input.layout.to_layout().pack(calibration)
    statistics = observe(model.circuit, packed, MARGIN)
    scores = Scores.seen(statistics, manifest.output_layout(), manifest.output_kinds)
    predicted = predict_precision(model.typed, statistics, packed, scores)
    measured = round(-float(np.log2(worst)), 2)
    file.remove()
    return plan_record("precision", model, backend) | {
        "weights": "random, seed 0" if name in _FOREIGN else "as shipped",
        "kind": manifest.output.kind,
        "images": count,
        "keys": KEYS,
        "bits_predicted": round(predicted.bits, 2),
        "bits_measured": measured,
        "difference": round(predicted.bits - measured, 2),
        "noisiest": predicted.noisiest,
    }


def _subject(name: str, count: int) -> tuple[Bundle, NDArray[np.float64], NDArray[np.float64 | np.uint8]]:
    """A model, the inputs that it is calibrated on, and images that it has not seen."""
    if name in _FOREIGN:
        one = _FOREIGN[name]
        model = one.compiled(Requirements(precision_bits=0)).bundle
        return model, one.inputs(CALIBRATION, seed=0), one.inputs(count, seed=1)
    (path,) = (path for path in shipped() if path.stem == name)
    model = bundle.load(path)
    return model, calibration_inputs(name), labelled_images(model.manifest.input_shape).images[:count]


def _outcomes(
    model: Bundle,
    images: NDArray[np.float64 | np.uint8],
    exact: NDArray[np.float64],
    done: Container[int],
    backend: str,
) -> Iterator[Outcome]:
    """Of all images that are not done; each key has its share of them."""
    every = np.array_split(np.arange(len(images)), KEYS)
    for numbers in every:
        missing = [int(number) for number in numbers if number not in done]
        if not missing:
            continue
        subject = Subject(model, backend)
        for number in track(missing, description=f"{model.manifest.name} "):
            scores, _ = subject.classify(images[number])
            yield Outcome(number, float(np.abs(scores - exact[number]).max()))

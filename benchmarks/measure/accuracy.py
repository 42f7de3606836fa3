"""accuracy: encrypted against cleartext on test images, and cleartext against the labels of all of them."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.support.networks import labelled_images
from benchmarks.support.options import Backend, Json, Network
from benchmarks.support.records import plan_record, spread, write_records
from benchmarks.support.resumable import ImageResult, ResultsFile
from benchmarks.support.subject import Subject
from heinfer.backends import choose_backend
from heinfer.backends.cleartext import simulate
from heinfer.circuit.precision import DEVIATIONS
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer.zoo.data import Images
from heinfer_cli.comparison import Scores, cleartext_scores, precision_bits
from heinfer_cli.models import bundle_file
from heinfer_client.codec import Codec

EXEMPT_MARGIN = 2.0**-8
"""Of the largest |score|: images whose two largest cleartext scores are closer may be classified either way."""
EXEMPT_SHARE = 0.01

_AT_ONCE = 100  # images interpreted together, in cleartext


def accuracy(
    json: Json,
    network: Network = "mnist-ffconv",
    images: Annotated[int, typer.Option(min=1, max=10_000, help="Encrypted images, the first of the test set.")] = 500,
    backend: Backend = None,
    cleartext: Annotated[
        int,
        typer.Option(min=1, max=10_000, help="Test images evaluated in cleartext, those at least that are encrypted."),
    ] = 10_000,
) -> None:
    """Compare encrypted with cleartext scores on test images; goes on where it was interrupted.

    Fails when an image that is not exempt is classified otherwise, or more than one in a hundred is exempt.
    """
    path = bundle_file(network)
    model = bundle.load(path)
    test = labelled_images(model.manifest.input_shape)[: max(images, cleartext)]
    scores = _cleartext(model, test)
    chosen = choose_backend(backend)
    identity = sha256(path.read_bytes() + chosen.encode()).hexdigest()
    file = ResultsFile(json.with_name(f"{json.name}.partial"), identity, ImageResult)
    _evaluate(model, test.images[:images], scores, file, chosen)
    results = [file.done[number] for number in range(images)]
    agreements, exempted = sum(r.agrees and not r.exempt for r in results), sum(r.exempt for r in results)
    record = plan_record("accuracy", model, chosen) | {
        "accuracy": float((scores.argmax(1) == test.labels).mean()),
        "accuracy_images": len(test),
        "accuracy_stated": float(model.metadata.get("test accuracy", "nan")),
        "images": images,
        "agreements": agreements,
        "exempted": exempted,
        "precision_bits_min": round(min(result.bits for result in results), 2),
        "precision_bits_predicted": round(_predicted_bits(model, test.images[:_AT_ONCE], scores[:images]), 2),
        "eval_seconds": spread([result.seconds for result in results]),
    }
    write_records([record], json)
    file.remove()
    if agreements + exempted < images or exempted > EXEMPT_SHARE * images:
        raise typer.Exit(1)


def _cleartext(model: Bundle, test: Images) -> Scores:
    """Scores (images, classes) of the circuit in cleartext."""
    starts = track(range(0, len(test), _AT_ONCE), description="cleartext ")
    return np.concatenate([cleartext_scores(model, list(test.images[first : first + _AT_ONCE])) for first in starts])


def _evaluate(
    model: Bundle, images: NDArray[np.uint8], scores: Scores, file: ResultsFile[ImageResult], backend: str
) -> None:
    missing = [number for number in range(len(images)) if number not in file.done]
    if missing:
        subject = Subject(model, backend)
        for number in track(missing, description="encrypted "):
            decrypted, seconds = subject.classify(images[number])
            file.add(_compared(number, decrypted, scores[number], seconds))


def _compared(number: int, decrypted: Scores, cleartext: Scores, seconds: float) -> ImageResult:
    second, first = np.sort(cleartext)[-2:]
    return ImageResult(
        image=number,
        agrees=bool(decrypted.argmax() == cleartext.argmax()),
        exempt=bool(first - second < EXEMPT_MARGIN * np.abs(cleartext).max()),
        bits=precision_bits(decrypted, cleartext),
        seconds=seconds,
    )


def _predicted_bits(model: Bundle, images: NDArray[np.uint8], scores: Scores) -> float:
    """Least precision that the noise model expects of images with these cleartext scores."""
    codec = Codec(model.manifest)
    simulation = simulate(model.typed, model.bounds, codec.pack(codec.read_images(images)))
    deviation = float(codec.unpack(simulation.deviation[None], model.manifest.batch).max())
    return float(-np.log2(DEVIATIONS * deviation / np.abs(scores).max(axis=1).min()))

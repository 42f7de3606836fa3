"""range: labels of pictures that no model was made for, whether they are wrong, and whether that is marked.

The rule, fixed before they were drawn: 1,000 pictures of benchmarks.support.pictures for every model that ships. A
label is wrong when it is not that of the circuit in cleartext. It is marked when the answer is out of range, and
uncertain when it is in range and of confidence "none". Wanted: no wrong label that is neither, and no test image out of
range.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.support.modelled import Modelled
from benchmarks.support.networks import labelled_images, shipped
from benchmarks.support.options import Backend, Json
from benchmarks.support.pictures import pictures
from benchmarks.support.records import Record, known_records, plan_record, save_records, write_table
from benchmarks.support.resumable import ResultsFile
from benchmarks.support.subject import Subject
from heinfer.backends import choose_backend
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer_cli.comparison import Scores
from heinfer_cli.models import bundle_file
from heinfer_client import Confidence
from heinfer_client.codec import Decrypted
from heinfer_client.prediction import confidence_of

PICTURES = 1000
ENCRYPTED = {"cifar-accurate": 200}
"""Pictures that are encrypted as well, of a model that is too slow for all: the first, of all families alike."""

OUT_OF_RANGE, UNCERTAIN, UNMARKED = "out_of_range", "uncertain", "unmarked"

_AT_ONCE = 50  # test images interpreted together, in cleartext

_SHOWN = "network", "pictures", "modelled_out_of_range", "encrypted_out_of_range", "test_out_of_range"


@dataclass(frozen=True)
class Outcome:
    """One picture: whether its label is wrong and how it is marked; encrypted where that was done, else empty."""

    image: int
    modelled_wrong: bool
    modelled_mark: str
    encrypted_wrong: bool = False
    encrypted_mark: str = ""


def range_(
    json: Json,
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this one; records of others stay.", show_default="all that ship"),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=PICTURES,
            help="Pictures that are encrypted as well.",
            show_default=f"all {PICTURES:,}; " + ", ".join(f"{count} for {name}" for name, count in ENCRYPTED.items()),
        ),
    ] = None,
    tests: Annotated[int, typer.Option(min=1, max=10_000, help="Test images, the first.")] = 10_000,
    backend: Backend = None,
) -> None:
    """Compare labels of generated pictures with cleartext, and see that wrong ones are marked and test images are not.

    Goes on where it was interrupted. Fails when a wrong label is not marked, or a test image is out of range.
    """
    records = {str(record["network"]): record for record in known_records(json)}
    for name in network or [path.stem for path in shipped()]:
        path = bundle_file(name)
        model = bundle.load(path)
        count = ENCRYPTED.get(name, PICTURES) if images is None else images
        record = _record(path, model, json, count, tests, choose_backend(backend))
        records[str(record["network"])] = record
        save_records(list(records.values()), json)
    write_table(list(records.values()), _SHOWN, json)
    if any(fails(record) for record in records.values()):
        raise typer.Exit(1)


def fails(record: Record) -> bool:
    """Whether a record has what must not be."""
    keys = "modelled_wrong_unmarked", "encrypted_wrong_unmarked", "test_wrong_unmarked", "test_out_of_range"
    return any(record[key] for key in keys)


def _record(path: Path, model: Bundle, json: Path, encrypted: int, tests: int, backend: str) -> Record:
    digest = sha256(path.read_bytes()).hexdigest()
    name = model.manifest.name
    file = ResultsFile(json.with_name(f"{json.name}.{name}.partial"), f"{digest} {backend} {encrypted}", Outcome)
    for outcome in _outcomes(model, file.done.keys(), encrypted, backend):
        file.add(outcome)
    results = [file.done[number] for number in range(PICTURES)]
    both = results[:encrypted]
    record = plan_record("range", model, backend) | {
        "sha256": digest,
        "limit": round(model.manifest.capacity_of(model.manifest.output), 2),
        "pictures": len(results),
        **_counts("modelled", ((r.modelled_wrong, r.modelled_mark) for r in results)),
        "encrypted": encrypted,
        **_counts("encrypted", ((r.encrypted_wrong, r.encrypted_mark) for r in both)),
        "marked_otherwise": sum((r.modelled_mark == OUT_OF_RANGE) != (r.encrypted_mark == OUT_OF_RANGE) for r in both),
        "test_images": tests,
        **_counts("test", _test_outcomes(model, tests)),
    }
    file.remove()
    return record


def _outcomes(model: Bundle, done: Container[int], encrypted: int, backend: str) -> Iterator[Outcome]:
    """Of all pictures that are not done."""
    missing = [number for number in range(PICTURES) if number not in done]
    drawn = list(pictures(model.manifest.input_shape, PICTURES))
    modelled = Modelled(model)
    subject = Subject(model, backend) if any(number < encrypted for number in missing) else None
    for number in track(missing, description=f"{model.manifest.name} "):
        ((exact, answer),) = modelled.answers([drawn[number]])
        outcome = Outcome(number, *_outcome(exact, answer))
        if subject is not None and number < encrypted:
            wrong, mark = _outcome(exact, subject.answer(drawn[number])[0])
            outcome = replace(outcome, encrypted_wrong=wrong, encrypted_mark=mark)
        yield outcome


def _test_outcomes(model: Bundle, count: int) -> Iterator[tuple[bool, str]]:
    test = labelled_images(model.manifest.input_shape)
    modelled = Modelled(model)
    for first in track(range(0, count, _AT_ONCE), description=f"{model.manifest.name} test images "):
        for exact, answer in modelled.answers(list(test.images[first : min(first + _AT_ONCE, count)])):
            yield _outcome(exact, answer)


def _outcome(exact: Scores, answer: Decrypted) -> tuple[bool, str]:
    """Whether the label of an answer for one image is wrong, and how it is marked."""
    (scores,), (marks,) = answer.scores, answer.marks.values()
    if not marks.in_range:
        mark = OUT_OF_RANGE
    else:
        mark = UNCERTAIN if confidence_of(scores, marks) is Confidence.NONE else UNMARKED
    return bool(scores.argmax() != exact.argmax()), mark


def _counts(what: str, outcomes: Iterable[tuple[bool, str]]) -> Record:
    """How many are marked in each way, and how many of these have a wrong label."""
    counts = Counter(outcomes)
    marks = OUT_OF_RANGE, UNCERTAIN, UNMARKED
    every: Record = {f"{what}_{mark}": counts[False, mark] + counts[True, mark] for mark in marks}
    return every | {f"{what}_wrong_{mark}": counts[True, mark] for mark in marks}

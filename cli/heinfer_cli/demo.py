"""heinfer demo: twenty digits classified unseen, by a server process of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from heinfer.extras import needs
from heinfer_cli.out_of_range import OUT_OF_RANGE, OUT_OF_RANGE_MEANS, in_words

if TYPE_CHECKING:
    from heinfer_cli.comparison import Scores
    from heinfer_client import Client, Prediction

_MODEL = "mnist-ffconv"
_DIFFERS = 1


@dataclass(frozen=True, eq=False)
class _Result:
    """One digit: what it is, what the encrypted run said, and the scores (classes,) of the cleartext model."""

    digit: int
    prediction: Prediction
    cleartext: Scores

    @property
    def predicted(self) -> int:
        return int(self.prediction.scores.argmax())

    @property
    def expected(self) -> int:
        return int(self.cleartext.argmax())


def demo(
    started: Annotated[float | None, typer.Option(hidden=True, help="Epoch second from which time counts.")] = None,
) -> None:
    """Classify twenty handwritten digits under encryption, over HTTP, and compare with the cleartext model."""
    began = started or time()
    with needs("client"):
        from heinfer_client import Client
    with needs("server"):
        import heinfer_server  # noqa: F401 - so that it is missing here, and not in the server's process
    from heinfer.formats import bundle
    from heinfer.zoo import bundle_path, digits
    from heinfer_cli.comparison import cleartext_scores
    from heinfer_cli.local_server import local_server

    console = Console()
    model, twenty = bundle.load(bundle_path(_MODEL)), digits()
    cleartext = cleartext_scores(model, list(twenty.images))
    console.print(f"Starting a server with {_MODEL}. It never gets the secret key.")
    with _terminable(), in_words(), local_server(bundle_path(_MODEL)) as url, Client(url, model=_MODEL) as client:
        client.prepare()
        with _progress() as progress:
            shown = progress.track(twenty.images, description="Classifying encrypted digits")
            predictions = [client.encrypt_and_predict(image) for image in shown]
        results = [_Result(*row) for row in zip(map(int, twenty.labels), predictions, cleartext, strict=True)]
        console.print(_table(results))
        _print_figures(client, console)
    console.print(f"elapsed {time() - began:.0f} s{', set-up included' if started else ''}", highlight=False)
    typer.echo(_summary(results))
    if any(result.predicted != result.expected for result in results):
        raise typer.Exit(_DIFFERS)


@contextmanager
def _terminable() -> Iterator[None]:
    """Have SIGTERM leave through the exits of context managers: the server must not outlive this process."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _table(results: list[_Result]) -> Table:
    table = Table("digit", "predicted", "expected", "client ms", "server ms", "bytes")
    for column in table.columns:
        column.justify = "right"
    means = ["digit: what the image shows", "expected: what the cleartext model says", "bytes: both ways"]
    if not all(result.prediction.in_range for result in results):
        means.append(OUT_OF_RANGE_MEANS)
    table.caption = "; ".join(means)
    for result in results:
        prediction = result.prediction
        table.add_row(
            str(result.digit),
            str(result.predicted) if prediction.in_range else f"{result.predicted}, {OUT_OF_RANGE}",
            str(result.expected),
            f"{prediction.client_seconds * 1000:.0f}",
            f"{prediction.server_seconds * 1000:.0f}",
            f"{prediction.upload_bytes + prediction.download_bytes:,}",
        )
    return table


def _print_figures(client: Client, console: Console) -> None:
    from heinfer.ckks.security import CITATION

    parameters = client.manifest.to_parameters()
    lines = (
        f"N = {parameters.ring_degree}, {parameters.log_qp:.1f} bits of modulus; 128-bit security allows "
        f"{parameters.security_limit}: {CITATION}",
        f"upload {client.upload_bytes:,} bytes an image; evaluation keys {client.key_bytes:,} bytes, sent once",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _summary(results: list[_Result]) -> str:
    from heinfer_cli.comparison import precision_bits

    count = len(results)
    match = sum(result.predicted == result.expected for result in results)
    correct = sum(result.predicted == result.digit for result in results)
    seconds = median(result.prediction.server_seconds for result in results)
    bits = min(precision_bits(result.prediction.scores, result.cleartext) for result in results)
    return (
        f"demo: {match}/{count} match the cleartext model, {correct}/{count} correct, "
        f"server {seconds:.2f} s per image, {bits:.1f} bits"
    )

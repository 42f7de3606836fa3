"""plots: pictures of the records that lie in a folder, each beside its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.draw.example import PICTURES, worked_example
from benchmarks.draw.forms import draw_forms
from benchmarks.draw.layouts import draw_layouts
from benchmarks.draw.planning import draw_planning
from benchmarks.draw.policies import draw_policies
from benchmarks.draw.prediction import draw_prediction
from benchmarks.draw.published import draw_published
from benchmarks.draw.style import Records
from benchmarks.draw.sweep import draw_sweep
from benchmarks.support.networks import accuracies
from benchmarks.support.records import known_records
from heinfer.zoo.registry import reference


def plots(
    results: Annotated[Path, typer.Option(help="Folder with the files that benchmarks wrote.")] = Path(
        "benchmarks/results"
    ),
) -> None:
    """Draw every benchmark that has a plot and a file of records."""
    for name, draw in PLOTS.items():
        if records := known_records(results / f"{name}.json"):
            _save(draw(records), results / f"{name}.png")
    planned, explicit = (known_records(results / f"planning{which}.json") for which in ("", "-explicit"))
    if planned and explicit:
        _save(draw_planning(planned, explicit), results / "planning.png")
    measured = sorted(results.glob("latency-cifar-*.json"))
    if measured:
        files = [*measured, *results.glob("latency.json")]
        _save(draw_published(_shipped(files)), results / "published.png")


def layouts(
    out: Annotated[Path, typer.Option(help="File for the picture.")] = Path("docs/layouts.png"),
) -> None:
    """Draw how small tensors sit in the slots of ciphertexts."""
    _save(draw_layouts(), out)


def example(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs/design"),
) -> None:
    """Draw the worked example of the documents: one convolution, from the image to its rotations."""
    shown = worked_example()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "heinfer"}):  # text as text, and the same file every time
        for name, draw in PICTURES.items():
            picture = out / f"{name}.svg"
            draw(shown).savefig(picture, metadata={"Date": None, "Creator": None})
            typer.echo(f"drawn {picture}")


def _save(figure: Figure, picture: Path) -> None:
    figure.savefig(picture, dpi=150, metadata={"Software": None})
    typer.echo(f"drawn {picture}")


def _shipped(files: Sequence[Path]) -> Records:
    """Records of latency, with what is known of each network."""
    records = [record for path in files for record in known_records(path)]
    return [r | accuracies(str(r["network"])) | {"data": reference(str(r["network"])).data.name} for r in records]


PLOTS: Mapping[str, Callable[[Records], Figure]] = {
    "forms": draw_forms,
    "policies": draw_policies,
    "prediction": draw_prediction,
    "sweep": draw_sweep,
}

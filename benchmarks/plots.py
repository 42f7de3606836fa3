"""plots: pictures of the records that lie in a folder, each beside its file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.plot_claim import draw_claim, draw_published
from benchmarks.plot_example import PICTURES, worked_example
from benchmarks.plot_layouts import draw_layouts
from benchmarks.plot_rotations import draw_rotations
from benchmarks.plot_sweep import draw_sweep
from benchmarks.trained import accuracies
from heinfer.zoo.registry import reference

_PARTS = {
    "rotate": ("rotations", "#3b6fb6"),
    "relinearize": ("relinearizations", "#9dbde3"),
    "multiply_plain": ("products by plaintexts", "#e08a2e"),
    "add": ("additions", "#f3cfa0"),
    "rescale": ("rescales", "#6aa56a"),
}
_OTHERS = ("everything else", "#b0b0b0")
_MEASURED = "#404040"


def plots(
    results: Annotated[Path, typer.Option(help="Folder with the files that benchmarks wrote.")] = Path(
        "benchmarks/results"
    ),
) -> None:
    """Draw every benchmark that has a plot and a file of records."""
    for name, draw in PLOTS.items():
        records = results / f"{name}.json"
        if records.exists():
            picture = records.with_suffix(".png")
            _save(draw(json.loads(records.read_text())), picture)
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


def _shipped(files: Sequence[Path]) -> list[Mapping[str, Any]]:
    """Records of latency, with what is known of each network."""
    records = [record for path in files for record in json.loads(path.read_text())]
    return [r | accuracies(r["network"]) | {"data": reference(r["network"]).data.name} for r in records]


def draw_prediction(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Three bars for each model: measured, predicted by the table of the same run, and by the shipped table."""
    figure = Figure(figsize=(9, 1.1 + 1.5 * len(records)), layout="constrained")
    rows = figure.subplots(len(records), squeeze=False)[:, 0]
    for axes, record in zip(rows, records, strict=True):
        _draw_measured(axes, 0, record)
        _draw_predicted(axes, 1, record, "calibrated")
        longest = _draw_predicted(axes, 2, record, "shipped")
        shipped = "" if record["shipped_machine"] == record["machine"] else "\n(of another machine)"
        names = "measured", "predicted by a table\nof this machine", f"by the shipped table{shipped}"
        axes.set_yticks(range(3), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.95 * max(longest, 1000 * record["eval_cpu_seconds"]["max"]))
        axes.set_title(f"{record['network']}, N = {record['ring_degree']}", loc="left", fontsize=10, weight="bold")
        axes.spines[["top", "right"]].set_visible(False)
    rows[-1].set_xlabel("milliseconds of processor time, one evaluation in one thread")
    handles, labels = (found[: len(_PARTS) + 1] for found in rows[0].get_legend_handles_labels())  # of one bar
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw_measured(axes: Axes, place: float, record: Mapping[str, Any]) -> None:
    seconds = record["eval_cpu_seconds"]
    middle, least, most = (1000 * seconds[which] for which in ("median", "min", "max"))
    spread = [[middle - least], [most - middle]]
    axes.barh(place, middle, color=_MEASURED, xerr=spread, ecolor="#a0a0a0", capsize=3)
    _note(axes, place, most, f"{middle:.0f} ms")


def _draw_predicted(axes: Axes, place: float, record: Mapping[str, Any], name: str) -> float:
    """One bar of the parts that operations of each kind have in the prediction; returns where it ends."""
    spent = dict(record[f"{name}_milliseconds"])
    parts = [(*style, spent.pop(kind, 0.0)) for kind, style in _PARTS.items()]
    left = 0.0
    for label, colour, width in [*parts, (*_OTHERS, sum(spent.values()))]:
        axes.barh(place, width, left=left, color=colour, label=label)
        left += width
    note = f"{left:.0f} ms, {record[f'{name}_over_measured']:.2f} of measured"
    if name == "shipped":
        note += f"; {record['shipped_over_measured_in_rotations']:.2f} counted in rotations"
    _note(axes, place, left, note)
    return left


def _note(axes: Axes, place: float, end: float, text: str) -> None:
    axes.annotate(text, (end, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)


PLOTS: Mapping[str, Callable[[Sequence[Mapping[str, Any]]], Figure]] = {
    "claim": draw_claim,
    "prediction": draw_prediction,
    "rotations": draw_rotations,
    "sweep": draw_sweep,
}

"""The picture of the benchmark prediction: measured and predicted time, by what it is spent on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.draw.style import Records, note, tidy

_PARTS = {
    "rotate": ("rotations", "#3b6fb6"),
    "relinearize": ("relinearizations", "#9dbde3"),
    "multiply_plain": ("products by plaintexts", "#e08a2e"),
    "add": ("additions", "#f3cfa0"),
    "rescale": ("rescales", "#6aa56a"),
}
_OTHERS = ("everything else", "#b0b0b0")
_MEASURED = "#404040"


def draw_prediction(records: Records) -> Figure:
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
        tidy(axes, grid=False)
    rows[-1].set_xlabel("milliseconds of processor time, one evaluation in one thread")
    handles, labels = (found[: len(_PARTS) + 1] for found in rows[0].get_legend_handles_labels())  # of one bar
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw_measured(axes: Axes, place: float, record: Mapping[str, Any]) -> None:
    seconds = record["eval_cpu_seconds"]
    middle, least, most = (1000 * seconds[which] for which in ("median", "min", "max"))
    spread = [[middle - least], [most - middle]]
    axes.barh(place, middle, color=_MEASURED, xerr=spread, ecolor="#a0a0a0", capsize=3)
    note(axes, (most, place), f"{middle:.0f} ms", (6, 0), "left", "center")


def _draw_predicted(axes: Axes, place: float, record: Mapping[str, Any], name: str) -> float:
    """One bar of the parts that operations of each kind have in the prediction; returns where it ends."""
    spent = dict(record[f"{name}_milliseconds"])
    parts = [(*style, spent.pop(kind, 0.0)) for kind, style in _PARTS.items()]
    left = 0.0
    for label, colour, width in [*parts, (*_OTHERS, sum(spent.values()))]:
        axes.barh(place, width, left=left, color=colour, label=label)
        left += width
    text = f"{left:.0f} ms, {record[f'{name}_over_measured']:.2f} of measured"
    if name == "shipped":
        text += f"; {record['shipped_over_measured_in_rotations']:.2f} counted in rotations"
    note(axes, (left, place), text, (6, 0), "left", "center")
    return left

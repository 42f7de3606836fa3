"""The picture of planning: seconds and memory along curves of growing networks, as they are and with explicit maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from benchmarks.draw.style import BLUE, ORANGE, Records, tidy

_CURVES = {
    "channels": ("channels of three convolutions at 32 x 32", "3 x {} at 32"),
    "side": ("side of three convolutions of 16 channels", "3 x 16 at {}"),
    "depth": ("convolutions of 16 channels at 16 x 16", "{} x 16 at 16"),
}
_SIZES = {"channels": (8, 16, 24, 32, 48, 64, 96), "side": (8, 16, 32, 48, 64), "depth": (2, 3, 4, 8, 12)}


def draw_planning(records: Records, explicit: Records) -> Figure:
    """Seconds above, memory below; by entries on the right, all networks.

    Args:
        records: of the benchmark ``planning``.
        explicit: of the same networks when maps were kept entry by entry; those that died have no point.
    """
    figure = Figure(figsize=(13, 7), layout="constrained")
    places = figure.subplots(2, len(_CURVES) + 1, sharey="row")
    kinds = ("maps entry by entry, 1938a0d", ORANGE, explicit), ("now", BLUE, records)
    for row, (key, unit) in zip(places, (("seconds", "processor seconds to plan"), ("mb", "peak MB")), strict=True):
        for axes, (curve, (what, name)) in zip(row, _CURVES.items(), strict=False):
            for label, color, made in kinds:
                by_name = {r["network"]: r for r in made if "failure" not in r}
                sized = [(size, by_name.get(name.format(size))) for size in _SIZES[curve]]
                found = [(size, _value(r, key)) for size, r in sized if r is not None]
                axes.plot(*zip(*found, strict=True), "o-", color=color, label=label)
            _finish(axes, what)
            axes.set_xticks(_SIZES[curve], [str(size) for size in _SIZES[curve]])
            axes.xaxis.set_minor_locator(NullLocator())
        row[0].set_ylabel(unit)
        last = row[-1]
        entries = {r["network"]: r["entries"] / 1e6 for r in records if "failure" not in r}
        for label, color, made in kinds:
            points = [(entries[r["network"]], _value(r, key)) for r in made if "failure" not in r]
            last.plot(*zip(*points, strict=True), "o", color=color, label=label)
        _finish(last, "million entries, all networks")
        last.xaxis.set_major_formatter("{x:g}")
    places[0][0].legend(frameon=False, fontsize=9)
    return figure


def _value(record: Mapping[str, Any], key: str) -> float:
    return float(record["peak_mb"] if key == "mb" else record["fold_seconds"] + record["plan_seconds"])


def _finish(axes: Axes, what: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(what)
    tidy(axes)

"""The picture of the benchmark policies: what every policy makes of every network."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.draw.style import POLICIES, Records, note, tidy
from heinfer.baselines.names import Policy

_BAR = 0.8 / len(POLICIES)
_SMALL = 8


def draw_policies(records: Records) -> Figure:
    """Two plots, logarithmic: key switches and predicted seconds, a group of bars for each network.

    Of plans that are searched, those for the least time. What was extrapolated from a sample has a ~ before it.
    """
    shown = [r for r in records if r["objective"] != "key switches" and "failure" not in r]
    names = list(dict.fromkeys(r["network"] for r in records))
    figure = Figure(figsize=(11, 1.2 + 0.85 * len(names)), layout="constrained")
    switches, seconds = figure.subplots(1, 2, sharey=True)
    _draw(switches, names, shown, "key_switches", 1)
    _draw(seconds, names, shown, "predicted_milliseconds", 1000)
    switches.set_yticks(range(len(names)), names)
    switches.invert_yaxis()
    switches.set_xlabel("key switches an image, uploads without a limit")
    seconds.set_xlabel("seconds an image, predicted by SEAL's shipped table, one thread")
    handles, labels = switches.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(POLICIES), frameon=False, fontsize=9)
    return figure


def _draw(axes: Axes, names: Sequence[str], records: Records, key: str, unit: float) -> None:
    places = {
        name: [p for p in POLICIES if any((r["network"], r["policy"]) == (name, p) for r in records)] for name in names
    }
    for policy, (label, colour) in POLICIES.items():
        rows = [r for r in records if r["policy"] == policy]
        at = [names.index(r["network"]) + _offset(places[r["network"]], policy) for r in rows]
        values = [r[key] / unit for r in rows]
        axes.barh(at, values, _BAR, color=colour, label=label)
        for y, value, r in zip(at, values, rows, strict=True):
            text = ("" if r["sampled"] == "nothing" else "~") + _figures(value)
            note(axes, (value, y), text, (4, 0), "left", "center_baseline", size=_SMALL)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    tidy(axes, grid=False)


def _offset(policies: Sequence[Policy], policy: Policy) -> float:
    """Of a policy's bar from the middle of its group, which has no gaps where a network lacks a policy."""
    return (policies.index(policy) - (len(policies) - 1) / 2) * _BAR


def _figures(value: float) -> str:
    """Whole from a hundred on, else two figures."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"

"""The picture of the benchmark forms: what every form of LoLa's CIFAR-10 network has in accuracy, and what it takes."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.draw.style import POLICIES, Records, note, tidy
from heinfer.baselines.names import Policy

_PLACES = {
    Policy.LOLA: ((0, 6), "center", "bottom"),
    Policy.FALCON: ((-3, 5), "right", "bottom"),
    Policy.FFCONV: ((4, -5), "left", "top"),
    Policy.HEINFER: ((6, 0), "left", "center"),
}
"""Of the words at a point: each policy's where the others' are not."""


def draw_forms(records: Records) -> Figure:
    """Accuracy against predicted seconds and rotations of every form, which its rank or block size names."""
    figure = Figure(figsize=(10, 11), layout="constrained")
    seconds, rotations = figure.subplots(2)
    shown = [r for r in records if r["data"] == "cifar-10" and r["ring"] == "smallest" and "accuracy" in r]
    for axes, key, unit in ((seconds, "predicted_milliseconds", 1000), (rotations, "rotations", 1)):
        for policy in _PLACES:
            _draw(axes, [r for r in shown if r["policy"] == policy], policy, key, unit)
        axes.set_xscale("log")
        axes.margins(x=0.08, y=0.08)
        axes.set_ylabel("accuracy on the 10,000 test images, %")
        tidy(axes)
    seconds.set_xlabel("seconds an image, SEAL, one thread, predicted by the shipped cost table")
    rotations.set_xlabel("rotations an image")
    figure.legend(*seconds.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def _draw(axes: Axes, records: Records, policy: Policy, key: str, unit: float) -> None:
    name, colour = POLICIES[policy]
    sized = {Policy.FALCON: ": blocks of k channels", Policy.FFCONV: ": rank r"}.get(policy, "")
    for brief, fill in ((False, "full"), (True, "none")):
        some = [r for r in records if (r.get("recipe") == "brief") == brief]
        if some:
            points = [r[key] / unit for r in some], [100 * r["accuracy"] for r in some]
            label = f"{name}{sized}, trained briefly" if brief else f"{name}{sized}"
            axes.plot(*points, "o", color=colour, fillstyle=fill, label=label)
        for r in some:
            note(
                axes, (r[key] / unit, 100 * r["accuracy"]), _word(r["network"]), *_PLACES[policy], size=8, colour=colour
            )


def _word(network: str) -> str:
    """A form's rank or block size."""
    base, _, size = network.partition("@")
    return f"{'r' if 'ffconv' in base else 'k'}={size}" if size else "whole"

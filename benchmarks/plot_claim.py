"""Pictures of the benchmark claim: policies on one network and its forms; accuracy against time, beside others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.published import PUBLISHED, Published

Records: TypeAlias = Sequence[Mapping[str, Any]]

_POLICIES = {
    "lola": ("LoLa's policy", "#808080"),
    "falcon": ("Falcon's", "#5aa469"),
    "ffconv": ("FFConv's", "#e08a2e"),
    "heinfer": ("heinfer's", "#3b6fb6"),
}
_MARKERS = {"read": "o", "quoted": "s", "derived": "^", "unverified": "x"}
_SMALL = 8
_OTHERS = "#b03060"


def draw_claim(records: Records) -> Figure:
    """Accuracy against predicted seconds and rotations of every form of LoLa's CIFAR-10 network."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    seconds, rotations = figure.subplots(1, 2, sharey=True)
    shown = [r for r in records if r["data"] == "cifar-10" and r["ring"] == "smallest" and "accuracy" in r]
    for policy, (label, colour) in _POLICIES.items():
        of = [r for r in shown if r["policy"] == policy]
        _draw_series(seconds, of, "predicted_seconds", colour, label)
        _draw_series(rotations, of, "rotations", colour, label)
    seconds.set_xlabel("seconds an image, SEAL, one thread, predicted by the shipped cost table")
    rotations.set_xlabel("rotations an image")
    seconds.set_ylabel("accuracy on the 10,000 test images, %")
    for axes in (seconds, rotations):
        axes.set_xscale("log")
        axes.margins(x=0.2, y=0.08)
        axes.grid(visible=True, color="#e6e6e6")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    seconds.legend(frameon=False, fontsize=_SMALL + 1, loc="lower right")
    return figure


def _draw_series(axes: Axes, records: Records, key: str, colour: str, label: str) -> None:
    for brief, fill in ((False, "full"), (True, "none")):
        some = [r for r in records if (r.get("recipe") == "brief") == brief]
        if some:
            axes.plot(
                [r[key] for r in some],
                [100 * r["accuracy"] for r in some],
                "o",
                color=colour,
                fillstyle=fill,
                label=f"{label}, trained briefly" if brief else label,
            )
        for r in some:
            size = r["network"].partition("@")[2]
            left = "falcon" in r["network"]
            word = ("rank " if "ffconv" in r["network"] else "block ") + size if size else "whole"
            axes.annotate(
                word,
                (r[key], 100 * r["accuracy"]),
                xytext=(-5, 4) if left else (5, -7),
                textcoords="offset points",
                fontsize=_SMALL,
                ha="right" if left else "left",
            )


def draw_published(records: Records) -> Figure:
    """Accuracy against the seconds of one image, ours beside what others report of theirs; markers say how known."""
    figure = Figure(figsize=(13, 10), layout="constrained")
    rows = figure.subplots(2, 2, width_ratios=[5, 4])
    for (axes, beside), data in zip(rows, ("cifar-10", "mnist"), strict=True):
        points = [(p.seconds, p.accuracy, _marker(p), _OTHERS, _described(p)) for p in PUBLISHED if p.data == data]
        points += [
            (r["eval_seconds"]["median"], 100 * r["accuracy"], "D", _POLICIES["heinfer"][1], _measured(r))
            for r in records
            if r["data"] == data
        ]
        _numbered(axes, beside, points)
        axes.set_title(data, loc="left", fontsize=10, weight="bold")
    names = {
        "o": "read in the source",
        "s": "quoted by others",
        "^": "derived from stated percentages",
        "x": "unverified",
    }
    handles = [rows[0, 0].plot([], [], m, color=_OTHERS, fillstyle="none", label=text)[0] for m, text in names.items()]
    handles += rows[0, 0].plot([], [], "D", color=_POLICIES["heinfer"][1], label="heinfer, measured here")
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False)
    return figure


def _numbered(axes: Axes, beside: Axes, points: Sequence[tuple[float, float, str, str, str]]) -> None:
    """Points with numbers, and beside them what each number is, the fastest first."""
    beside.axis("off")
    for number, (x, y, marker, colour, text) in enumerate(sorted(points), 1):
        axes.plot(x, y, marker, color=colour, fillstyle="full" if marker == "D" else "none", markersize=7)
        above = number % 2
        axes.annotate(
            str(number), (x, y), xytext=(0, 6 if above else -6), textcoords="offset points",
            fontsize=_SMALL, ha="center", va="bottom" if above else "top", color=colour,
        )  # fmt: skip
        beside.text(0, 1 - number / (len(points) + 1), f"{number}  {text}", fontsize=_SMALL, color=colour, va="center")
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.12)
    axes.set_ylabel("accuracy, %")
    axes.set_xlabel("seconds of one image (logarithmic), each on its authors' hardware")
    axes.grid(visible=True, color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _marker(point: Published) -> str:
    return next(marker for known, marker in _MARKERS.items() if known in point.known.split(",")[0].split())


def _described(point: Published) -> str:
    return f"{point.system}: {point.accuracy:g} %, {point.seconds:g} s; {point.hardware}; {point.known}"


def _measured(record: Mapping[str, Any]) -> str:
    threads = f"{record['threads']} thread{'s' * (record['threads'] > 1)}"
    seconds = record["eval_seconds"]["median"]
    return f"{record['network']}: {100 * record['accuracy']:.2f} %, {seconds:.3g} s; {record['backend']}, {threads}"

"""Single images of CIFAR-10 and MNIST, encrypted, as others report them: accuracy, seconds, hardware, how well known.

Kinds: "read" in the paper or its authors' repository; "quoted" by another; "derived" from percentages that a paper
states; "unverified": not to be relied on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.draw.style import BLUE, Records, note, tidy


class Published(NamedTuple):
    """One figure of one system; accuracy in per cent, the time of one image in seconds."""

    system: str
    data: str
    accuracy: float
    seconds: float
    hardware: str
    known: str
    source: str


PUBLISHED = (
    Published("LoLa", "cifar-10", 76.31, 750, "8 vCPU", "read", "github.com/microsoft/CryptoNets"),
    Published("LoLa, paper's variant", "cifar-10", 74.1, 730, "8 vCPU", "unverified accuracy", "arXiv 1812.10659"),
    Published("Falcon", "cifar-10", 75, 107, "8 vCPU", "derived, accuracy unverified", "NeurIPS 2020"),
    Published("FFConv", "cifar-10", 75, 85, "8 vCPU", "derived, accuracy unverified", "arXiv 2102.03494"),
    Published("Faster CryptoNets", "cifar-10", 75.99, 22372, "i7-5930K, 12 threads", "quoted", "arXiv 1811.09953"),
    Published("HCNN", "cifar-10", 77.55, 304, "4 GPU", "quoted", "arXiv 1811.00778"),
    Published("EVA, SqueezeNet", "cifar-10", 79.38, 72.7, "56 threads", "unverified", "PLDI 2020"),
    Published("Concrete ML, VGG9", "cifar-10", 86.0, 40, "128 vCPU", "read", "github.com/zama-ai/concrete-ml"),
    Published("Kim & Guyot, Plain-20", "cifar-10", 92.0, 255, "1 thread", "quoted", "ConvFHE, 2023"),
    Published("Orion, VGG5, by FEnc2", "cifar-10", 86.32, 35.3, "Threadripper 3975WX", "read", "arXiv 2606.16359"),
    Published("LoLa", "mnist", 98.95, 2.2, "8 vCPU", "quoted accuracy", "github.com/microsoft/CryptoNets"),
    Published("LoLa-Small", "mnist", 96.92, 0.29, "8 vCPU", "quoted", "arXiv 1812.10659"),
    Published("Falcon", "mnist", 98.95, 1.2, "8 vCPU", "derived, accuracy unverified", "NeurIPS 2020"),
    Published("TenSEAL tutorial", "mnist", 97.48, 2.0, "i7-3612QM", "read", "github.com/OpenMined/TenSEAL"),
    Published("EVA, LeNet-5-medium", "mnist", 99.1, 1.2, "56 threads", "unverified", "PLDI 2020"),
    Published("FHEON, LeNet-5", "mnist", 98.5, 13, "Ryzen 5900X", "quoted", "FHEON, 2025"),
)

_MARKERS = {"read": "o", "quoted": "s", "derived": "^", "unverified": "x"}
_OTHERS = "#b03060"
_SMALL = 8


def draw_published(records: Records) -> Figure:
    """Accuracy against the seconds of one image, ours beside what others report of theirs; markers say how known."""
    figure = Figure(figsize=(13, 10), layout="constrained")
    rows = figure.subplots(2, 2, width_ratios=[5, 4])
    for (axes, beside), data in zip(rows, ("cifar-10", "mnist"), strict=True):
        points = [(p.seconds, p.accuracy, _marker(p), _OTHERS, _described(p)) for p in PUBLISHED if p.data == data]
        points += [
            (r["eval_seconds"]["median"], 100 * r["accuracy"], "D", BLUE, _measured(r))
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
    handles += rows[0, 0].plot([], [], "D", color=BLUE, label="heinfer, measured here")
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False)
    return figure


def _numbered(axes: Axes, beside: Axes, points: Sequence[tuple[float, float, str, str, str]]) -> None:
    """Points with numbers, and beside them what each number is, the fastest first."""
    beside.axis("off")
    for number, (x, y, marker, colour, text) in enumerate(sorted(points), 1):
        axes.plot(x, y, marker, color=colour, fillstyle="full" if marker == "D" else "none", markersize=7)
        place, va = ((0, -6), "top") if number % 2 else ((0, 6), "bottom")
        note(axes, (x, y), str(number), place, va=va, size=_SMALL, colour=colour)
        beside.text(0, 1 - number / (len(points) + 1), f"{number}  {text}", fontsize=_SMALL, color=colour, va="center")
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.12)
    axes.set_ylabel("accuracy, %")
    axes.set_xlabel("seconds of one image (logarithmic), each on its authors' hardware")
    tidy(axes)


def _marker(point: Published) -> str:
    return next(marker for known, marker in _MARKERS.items() if known in point.known.split(",")[0].split())


def _described(point: Published) -> str:
    return f"{point.system}: {point.accuracy:g} %, {point.seconds:g} s; {point.hardware}; {point.known}"


def _measured(record: Mapping[str, Any]) -> str:
    threads = f"{record['threads']} thread{'s' * (record['threads'] > 1)}"
    seconds = record["eval_seconds"]["median"]
    return f"{record['network']}: {100 * record['accuracy']:.2f} %, {seconds:.3g} s; {record['backend']}, {threads}"

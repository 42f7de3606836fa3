"""What pictures of records have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from matplotlib.axes import Axes

from heinfer.baselines.names import Policy

Records: TypeAlias = Sequence[Mapping[str, Any]]

BLUE, ORANGE = "#3b6fb6", "#e08a2e"
POLICIES = {
    Policy.LOLA: ("LoLa", "#808080"),
    Policy.FFCONV: ("FFConv", ORANGE),
    Policy.FALCON: ("Falcon", "#5aa469"),
    Policy.UNFACTORIZED: ("heinfer, factors multiplied out", "#9dbde3"),
    Policy.HEINFER: ("heinfer", BLUE),
}
"""Name and colour of each policy."""


def tidy(axes: Axes, *, grid: bool = True) -> None:
    """No frame but the axes, and a pale grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(visible=True, color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)


def note(
    axes: Axes,
    at: tuple[float, float],
    text: str,
    offset: tuple[float, float],
    ha: str = "center",
    va: str = "bottom",
    *,
    size: float = 9,
    colour: str = "black",
) -> None:
    """Text beside a point, so many typographic points away."""
    axes.annotate(text, at, xytext=offset, textcoords="offset points", ha=ha, va=va, fontsize=size, color=colour)

"""The pictures of docs/design/worked-example.md: a convolution of 5 x 5 and stride 2, from image to rotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from heinfer.layout.packings import Grid, phase_pack, plane_pack
from heinfer.network.operators import Convolution
from heinfer.planner.kernel.bsgs import Cover, RotationTree, covers
from heinfer.planner.kernel.diagonals import DiagonalProblem

IMAGE, CHANNELS, SIDE, SLOTS = 8, 4, 4, 64
"""An image of 8 x 8, as phases of 4 x 4, in one period of slots; four channels leave."""
BABY, GIANT = 20, 2
"""The baby step and the giant step that are followed slot by slot."""
FOLLOWED = 5
"""The output pixel that is followed: the second of the second row, in the first channel."""

Colour = str | tuple[float, float, float]

_PHASES = "#3b6fb6", "#e08a2e", "#5aa469", "#a05195"
_GIANTS = "#3b6fb6", "#7fb2e5", "#5aa469", "#a5cf8e", "#c8553d", "#f0a58f"
_DARK, _GREY, _PALE = "#1f2328", "#8c959f", "#eaeef2"
_SQUARE = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
_SMALL, _TINY, _TITLE = 8.5, 6, 10.5


@dataclass(frozen=True, eq=False)
class Example:
    """The small convolution as the planner has it: the problem and the cover of fewest rotations."""

    problem: DiagonalProblem
    cover: Cover

    @property
    def babies(self) -> list[int]:
        return sorted(self.cover.babies.nodes)

    @property
    def giants(self) -> list[int]:
        return sorted(self.cover.giants.nodes)

    def steps_of(self, shift: int) -> tuple[int, int]:
        """The baby and the giant of a shift."""
        baby, giant = self.cover.split[(shift - self.cover.offset) % self.cover.modulus]
        return self.cover.babies.nodes[baby], self.cover.giants.nodes[giant]


def worked_example() -> Example:
    """Made as the page makes it."""
    convolution = Convolution(np.ones((CHANNELS, 1, 5, 5)), np.zeros(CHANNELS), stride=(2, 2), padding=(2, 2))
    linear, grid = convolution.linear_map((1, IMAGE, IMAGE)), Grid(SIDE, SIDE)
    source = phase_pack((1, IMAGE, IMAGE), (2, 2), grid, SLOTS)
    problem = DiagonalProblem(linear, source, plane_pack((CHANNELS, SIDE, SIDE), grid, SLOTS))
    found = covers(problem.choose().shifts, problem.modulus)
    return Example(problem, min(found, key=lambda cover: cover.rotations))


def draw_phases(shown: Example) -> Figure:
    """The image, its four phases, and the slots they fill; what one output pixel reads is framed."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplot_mosaic(
        [["image", "planes"], ["slots", "slots"]], height_ratios=[5.2, 1], width_ratios=[1, 1.5]
    )
    linear, index = shown.problem.map, shown.problem.source.index[0]
    read = set(linear.entries.cols[linear.entries.rows == FOLLOWED].tolist())
    for pixel in range(IMAGE * IMAGE):
        _cell(axes["image"], *divmod(pixel, IMAGE)[::-1], _phase_colour(pixel), str(pixel), framed=pixel in read)
    _blank(axes["image"], "image: 8 x 8, a colour for each phase", IMAGE, IMAGE)
    for slot, pixel in enumerate(index.tolist()):
        plane, place = divmod(slot, SIDE * SIDE)
        y, x = divmod(place, SIDE)
        column = x + plane * (SIDE + 0.6)
        _cell(axes["planes"], column, y, _phase_colour(pixel), str(pixel), framed=pixel in read)
        if place == 0:
            label = f"{_parity(plane // 2)} rows,\n{_parity(plane % 2)} columns"
            axes["planes"].text(column + 2, -0.25, label, ha="center", va="bottom", fontsize=_SMALL, color=_DARK)
    note = "framed: the 5 x 5 pixels that the output pixel in row 1, column 1 reads"
    axes["planes"].text(0, SIDE + 0.3, note, va="top", fontsize=_SMALL + 1, color=_DARK)
    _blank(axes["planes"], "four phases: a plane of 4 x 4 each", 4 * (SIDE + 0.6) - 0.6, SIDE + 1, head=1.6)
    places = set(np.flatnonzero(np.isin(index, list(read))).tolist())
    _strip(axes["slots"], index, [_phase_colour(pixel) for pixel in index.tolist()], places)
    axes["slots"].set_title("64 slots: the planes one after the other", loc="left", fontsize=_TITLE, weight="bold")
    return figure


def draw_matrix(shown: Example) -> Figure:
    """The matrix in the order of slots: a diagonal is one shift, its colour that of its giant step."""
    figure = Figure(figsize=(7.4, 7.2), layout="constrained")
    axes = figure.subplots()
    for diagonal, reads in shown.problem.choose().plaintexts():
        rows = np.flatnonzero(reads >= 0).tolist()
        cells = [Path(_SQUARE + np.array(((row + diagonal.shift) % SLOTS, row))) for row in rows]
        followed = shown.steps_of(diagonal.shift) == (BABY, GIANT)
        axes.add_patch(
            PathPatch(
                Path.make_compound_path(*cells),
                facecolor=_shift_colour(shown, diagonal.shift),
                edgecolor=_DARK if followed else "white",
                linewidth=1.3 if followed else 0.3,
                zorder=2 if followed else 1,
            )
        )
    for border in range(0, SLOTS + 1, SIDE * SIDE):
        axes.axhline(border, color=_GREY, linewidth=0.8)
        axes.axvline(border, color=_GREY, linewidth=0.8)
    middles = np.arange(4) * SIDE * SIDE + SIDE * SIDE / 2
    phases = [f"{_parity(plane // 2)} rows,\n{_parity(plane % 2)} columns" for plane in range(4)]
    axes.set_xticks(middles, phases, fontsize=_SMALL)
    axes.set_yticks(middles, [f"channel {n}" for n in range(CHANNELS)], fontsize=_SMALL, rotation=90, va="center")
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.set_xlabel("slot of the input, by phases", fontsize=_SMALL + 1)
    axes.set_ylabel("slot of the output, by channels", fontsize=_SMALL + 1)
    axes.set(xlim=(0, SLOTS), ylim=(SLOTS, 0), aspect="equal")
    axes.spines[:].set_visible(False)
    return figure


def draw_grid(shown: Example) -> Figure:
    """Every shift as the sum of a baby step and a giant step."""
    figure = Figure(figsize=(9.2, 5.8), layout="constrained")
    axes = figure.subplots()
    reached = {shown.steps_of(shift): shift for shift in shown.problem.choose().shifts}
    for y, giant in enumerate(shown.giants):
        for x, baby in enumerate(shown.babies):
            shift = reached[baby, giant]
            _cell(axes, x, y, _shift_colour(shown, shift), "")
            axes.text(x + 0.5, y + 0.3, str(shift), ha="center", va="center", fontsize=_TITLE, weight="bold")
            axes.text(x + 0.5, y + 0.7, _meaning(shift), ha="center", va="center", fontsize=_TINY + 1.5)
    x, y = shown.babies.index(BABY), shown.giants.index(GIANT)
    axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=_DARK, linewidth=1.8, zorder=4))
    for x, baby in enumerate(shown.babies):
        axes.text(x + 0.5, -0.4, f"baby {baby}", ha="center", va="bottom", fontsize=_SMALL + 1, weight="bold")
        axes.text(x + 0.5, -0.12, _made_of(shown.cover.babies, baby), ha="center", va="bottom", fontsize=_SMALL)
    for y, giant in enumerate(shown.giants):
        axes.text(-0.1, y + 0.38, f"giant {giant}", ha="right", va="center", fontsize=_SMALL + 1, weight="bold")
        axes.text(-0.1, y + 0.68, _made_of(shown.cover.giants, giant), ha="right", va="center", fontsize=_SMALL)
    _blank(axes, "", len(shown.babies), len(shown.giants), head=0.75, left=1.1, equal=False)
    return figure


def draw_steps(shown: Example) -> Figure:
    """Slots under one baby step and one giant step, and where one pixel goes."""
    figure = Figure(figsize=(13, 5.0), layout="constrained")
    source = shown.problem.source.index[0]
    turned = np.roll(source, -BABY)
    weights = _plaintext(shown)
    multiplied = np.where(np.roll(weights, GIANT), turned, -1)
    moved = np.roll(multiplied, -GIANT)
    slot = (FOLLOWED + shown.cover.offset) % SLOTS
    places = [(slot + BABY + GIANT) % SLOTS, (slot + GIANT) % SLOTS, (slot + GIANT) % SLOTS, slot]
    titles = (
        "the input",
        f"baby step: rotated left by {BABY} ({_made_of(shown.cover.babies, BABY)}), once for all giants",
        f"times the diagonal, which was moved {GIANT} to the right beforehand (white: no weight)",
        f"giant step: rotated left by {GIANT}, together with the other products of this giant",
    )
    rows = figure.subplots(len(titles))
    for axes, title, pixels, place in zip(rows, titles, (source, turned, multiplied, moved), places, strict=True):
        colours: list[Colour] = ["white" if pixel < 0 else _phase_colour(pixel) for pixel in pixels.tolist()]
        _strip(axes, pixels, colours, framed={place})
        axes.set_title(title, loc="right", fontsize=_TITLE, weight="bold")
    for upper, lower, start, end in zip(rows[:-1], rows[1:], places[:-1], places[1:], strict=True):
        lower.annotate(
            "",
            xy=(end + 0.5, 0),
            xycoords=lower.transData,
            xytext=(start + 0.5, 1),
            textcoords=upper.transData,
            arrowprops={"arrowstyle": "-|>", "color": _DARK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )
    return figure


PICTURES: Mapping[str, Callable[[Example], Figure]] = {
    "example-phases": draw_phases,
    "example-matrix": draw_matrix,
    "example-grid": draw_grid,
    "example-steps": draw_steps,
}


def _plaintext(shown: Example) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Where the diagonal of the followed baby and giant has a weight, with the output moved by the cover's offset."""
    for diagonal, reads in shown.problem.choose().plaintexts():
        if shown.steps_of(diagonal.shift) == (BABY, GIANT):
            return np.roll(reads >= 0, shown.cover.offset)
    raise AssertionError("the cover has no such baby and giant")


def _meaning(shift: int) -> str:
    """A shift as (planes, rows, columns)."""
    plane, within = divmod(shift + SIDE + 1, SIDE * SIDE)
    y, x = divmod(within, SIDE)
    return f"plane +{plane % 4}\nrow {y - 1:+d}, column {x - 1:+d}".replace("+0", "0")


def _parity(number: int) -> str:
    return ("even", "odd")[number]


def _made_of(tree: RotationTree, node: int) -> str:
    """The rotations that lead to a node, added up."""
    place = tree.nodes.index(node)
    steps = []
    while place:
        steps.append(tree.steps[place])
        place = tree.parents[place]
    return " + ".join(map(str, reversed(steps))) if steps else "no rotation"


def _phase_colour(pixel: int) -> tuple[float, float, float]:
    y, x = divmod(pixel, IMAGE)
    return _lighter(_PHASES[2 * (y % 2) + x % 2], 0.42 + 0.3 * pixel / IMAGE**2)


def _shift_colour(shown: Example, shift: int) -> tuple[float, float, float]:
    """The hue of its giant, lighter from baby to baby."""
    baby, giant = shown.steps_of(shift)
    return _lighter(_GIANTS[shown.giants.index(giant)], 1 - 0.12 * shown.babies.index(baby))


def _lighter(colour: str, share: float) -> tuple[float, float, float]:
    red, green, blue = (1 - (1 - value) * share for value in to_rgb(colour))
    return red, green, blue


def _cell(axes: Axes, x: float, y: float, colour: Colour, text: str, *, framed: bool = False) -> None:
    edge, width = (_DARK, 1.6) if framed else ("white", 0.8)
    axes.add_patch(
        Rectangle((x, y), 1, 1, facecolor=colour, edgecolor=edge, linewidth=width, zorder=2 if framed else 1)
    )
    axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=_TINY + 1, color=_DARK, zorder=3)


def _strip(
    axes: Axes,
    pixels: np.ndarray[tuple[int], np.dtype[np.int64]],
    colours: Sequence[Colour],
    framed: Set[int],
) -> None:
    """One row of slots, each with the number of its pixel."""
    axes.add_patch(Rectangle((0, 0), SLOTS, 1, facecolor=_PALE, edgecolor=_GREY, linewidth=1))
    for slot, (pixel, colour) in enumerate(zip(pixels.tolist(), colours, strict=True)):
        _cell(axes, slot, 0, colour, "" if pixel < 0 else str(pixel), framed=slot in framed)
    axes.set(xlim=(-0.1, SLOTS + 0.1), ylim=(1.1, -0.1))
    axes.set_xticks(np.arange(0, SLOTS, 4) + 0.5, [str(slot) for slot in range(0, SLOTS, 4)], fontsize=_TINY + 1)
    axes.set_yticks([])
    axes.tick_params(length=0, pad=2, colors=_GREY)
    axes.spines[:].set_visible(False)


def _blank(
    axes: Axes, title: str, width: float, height: float, *, head: float = 0.0, left: float = 0.0, equal: bool = True
) -> None:
    axes.set(xlim=(-left - 0.05, width + 0.05), ylim=(height + 0.05, -head - 0.05))
    if equal:
        axes.set_aspect("equal", anchor="W")
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=_TITLE, weight="bold")

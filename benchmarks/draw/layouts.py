"""The picture of layouts in docs/ffconv.md: small tensors as the planner's own layouts put them into slots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from heinfer.baselines.slot_maps import Raster, planes
from heinfer.layout.layout import FREE, ZERO, Layout
from heinfer.layout.packings import Grid, dense_pack, phase_pack, plane_pack, window_pack

_CHANNELS = "#3b6fb6", "#e08a2e", "#5aa469", "#a05195"
_ZERO, _FREE = "#ffffff", "#d9d9d9"
_SLOTS = 64
_SMALL, _TINY = 9, 5.5


def draw_layouts() -> Figure:
    """A panel for each layout: a row of slots for each ciphertext, coloured by channel, numbered by pixel."""
    figure = Figure(figsize=(13, 9.5), layout="constrained")
    tensor, image = (4, 4, 4), (1, 8, 8)
    panels = (
        ("DensePack: 4 channels of 4 x 4 in one ciphertext", dense_pack(tensor, _SLOTS)),
        (
            "ConvPack: a ciphertext for each channel (a 1 x 1 convolution needs no rotation)",
            planes(tensor, Raster(4, 4), 16, dense=False).places.layout(),
        ),
        (
            "ConvPack of an input: an 8 x 8 image for a 2 x 2 kernel of stride 2, a ciphertext for each tap",
            window_pack(image, (np.arange(2), np.arange(2)), (2, 2), np.arange(16).reshape(4, 4), 16),
        ),
        (
            "stride phases (space to depth), what heinfer's clients mostly send: every tap reads at one shift",
            phase_pack(image, (2, 2), Grid(4, 4), _SLOTS),
        ),
        (
            "after a stride of 2: 4 channels of 2 x 2 in blocks of 4 x 4, gaps unused (grey)",
            plane_pack((4, 2, 2), Grid(4, 4, 2, 2), _SLOTS),
        ),
        (
            "the same with 2 channels, twice, the second time in turned order: half the shifts for the next layer",
            plane_pack((2, 2, 2), Grid(4, 4, 2, 2), _SLOTS, turn=1),
        ),
    )
    rows = figure.subplots(len(panels), height_ratios=[0.8 + layout.ciphertexts for _, layout in panels])
    for axes, (title, layout) in zip(rows, panels, strict=True):
        _draw(axes, layout, title)
    return figure


def _draw(axes: Axes, layout: Layout, title: str) -> None:
    colours = np.ones((*layout.index.shape, 3))
    plane = int(np.prod(layout.shape[1:]))
    for (ciphertext, slot), element in np.ndenumerate(layout.index):
        colours[ciphertext, slot] = _colour(int(element), plane)
        if element >= 0:
            axes.text(slot, ciphertext, str(element % plane), ha="center", va="center", fontsize=_TINY)
    axes.imshow(colours, aspect="auto", interpolation="none")
    axes.set_xticks(np.arange(layout.index.shape[1] + 1) - 0.5, [], minor=False)
    axes.set_yticks(range(layout.ciphertexts), _names(layout.ciphertexts), fontsize=_SMALL)
    axes.tick_params(length=0)
    axes.grid(visible=True, axis="x", color="white", linewidth=0.8)
    for ciphertext in range(1, layout.ciphertexts):
        axes.axhline(ciphertext - 0.5, color="white", linewidth=3)
    axes.set_title(title, loc="left", fontsize=_SMALL + 1, weight="bold")


def _names(ciphertexts: int) -> Sequence[str]:
    return [f"ciphertext {number}" for number in range(ciphertexts)]


def _colour(element: int, plane: int) -> tuple[float, float, float]:
    """Of a channel, lighter from pixel to pixel."""
    if element in {ZERO, FREE}:
        return to_rgb(_ZERO if element == ZERO else _FREE)
    channel, pixel = divmod(element, plane)
    share = 0.25 + 0.5 * pixel / plane
    red, green, blue = (1 - (1 - value) * (1 - share) for value in to_rgb(_CHANNELS[channel % len(_CHANNELS)]))
    return red, green, blue

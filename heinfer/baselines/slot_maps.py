"""Where published methods put tensors: layouts that are cheap to name and to take a part of.

A layout is an array of all slots, and a method that gives every number a ciphertext of its own has thousands of
ciphertexts. So a policy works with the place of each element, and makes layouts of them one layer at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from heinfer.errors import LayoutError
from heinfer.layout.layout import ZERO, Layout
from heinfer.layout.packings import power_of_two, require_room, window_pack
from heinfer.network.join import Index
from heinfer.network.linear_map import LinearMap
from heinfer.planner.search.candidates import strides, taps

Shape = tuple[int, ...]


def doublings(first: int, end: int) -> tuple[int, ...]:
    """first, 2 first, 4 first, ... below the end."""
    steps: list[int] = []
    while first < end:
        steps.append(first)
        first *= 2
    return tuple(steps)


def subset_sums(steps: tuple[int, ...]) -> Index:
    """The sum of every subset; at position n that of the subset that the binary digits of n name."""
    sums = np.zeros(1, dtype=np.int64)
    for step in steps:
        sums = np.concatenate([sums, sums + step])
    return sums


@dataclass(frozen=True, eq=False)
class SlotMap:
    """Where the elements of a tensor are.

    Attributes:
        shape: of the tensor.
        slots: of a ciphertext.
        ciphertext, slot: of each element's first copy, shape (size,).
        copies: an element has a copy at its slot plus every subset sum of these.
        others: what the other slots hold, ZERO or FREE.
        label: for reports.
    """

    shape: Shape
    slots: int
    ciphertext: Index
    slot: Index
    label: str
    copies: tuple[int, ...] = ()
    others: int = ZERO

    @cached_property
    def ciphertexts(self) -> int:
        return int(self.ciphertext.max()) + 1

    def layout(self) -> Layout:
        index = np.full((self.ciphertexts, self.slots), self.others)
        held = (self.slot[:, None] + subset_sums(self.copies)) % self.slots
        index[self.ciphertext[:, None], held] = np.arange(self.slot.size)[:, None]
        return Layout(self.shape, index)

    def part(self, kept: NDArray[np.bool_]) -> SlotMap:
        """Some of the elements, as one axis, in the ciphertexts that are left."""
        ciphertext = np.unique(self.ciphertext[kept], return_inverse=True)[1]
        shape = (int(kept.sum()),)
        return SlotMap(shape, self.slots, ciphertext, self.slot[kept], self.label, self.copies, self.others)

    def reads(self, linear: LinearMap) -> tuple[Index, Index]:
        """Ciphertext and slot in which every entry of a map finds its input."""
        return self.ciphertext[linear.entries.cols], self.slot[linear.entries.cols]


@dataclass(frozen=True, eq=False)
class Vector:
    """A flattened tensor, as dot products want it.

    Attributes:
        places: where it is.
        sums: rotations that add up one copy of every element.
        free: steps from one copy of the tensor to the others.
    """

    places: SlotMap
    sums: tuple[int, ...]
    free: tuple[int, ...] = ()


def vector(shape: Shape, slots: int, *, copied: bool, together: int = 1) -> Vector:
    """A tensor in its own order, repeated as often as it fits (LoLa's "stacked") or once ("dense").

    Args:
        copied: whether to repeat it; one that fills several ciphertexts never is.
        together: elements that a cut between two ciphertexts must not part.
    """
    size = prod(shape)
    number = np.arange(size)
    held = slots if size <= slots else slots // together * together
    width = power_of_two(min(size, held))
    free = doublings(width, slots) if copied and size <= slots else ()
    note = f", {1 << len(free)} copies" if free else ""
    label = f"{named(shape)} dense{note}{_in_several(-(-size // held))}"
    return Vector(SlotMap(shape, slots, number // held, number % held, label, free), doublings(1, width), free)


def _reach(linear: LinearMap, axis: int) -> tuple[int, int]:
    """First and last offset at which the outputs of a map between planes read; a map that reads nothing has one."""
    offsets = taps(linear, axis) or (0,)
    return offsets[0], offsets[-1]


@dataclass(frozen=True)
class Raster:
    """Where the elements of a plane are: (y, x) in row base_y + gap_y y, column base_x + gap_x x of a block."""

    height: int
    width: int
    base: tuple[int, int] = (0, 0)
    gap: tuple[int, int] = (1, 1)

    @property
    def block(self) -> int:
        return self.height * self.width

    def pixels(self, height: int, width: int) -> Index:
        """Slot of every element of a plane, not reduced modulo the slots: shape (height * width,)."""
        row = self.base[0] + self.gap[0] * np.arange(height)
        column = self.base[1] + self.gap[1] * np.arange(width)
        return (row[:, None] * self.width + column).reshape(-1)

    def after(self, linear: LinearMap) -> Raster:
        """The corners of the windows that a map between planes reads: one for each output."""
        offset = [_reach(linear, axis)[0] for axis in (0, 1)]
        # The only output of an axis has no gap.
        stride = [s if n > 1 else 1 for s, n in zip(strides(linear), linear.out_shape[1:], strict=True)]
        base = self.base[0] + self.gap[0] * offset[0], self.base[1] + self.gap[1] * offset[1]
        return Raster(self.height, self.width, base, (self.gap[0] * stride[0], self.gap[1] * stride[1]))

    def window(self, linear: LinearMap) -> tuple[int, ...]:
        """Rotations that add up the window of a map between planes, its axes padded to powers of two."""
        (first_y, last_y), (first_x, last_x) = (_reach(linear, axis) for axis in (0, 1))
        along_x = (self.gap[1] * step for step in doublings(1, last_x - first_x + 1))
        along_y = (self.width * self.gap[0] * step for step in doublings(1, last_y - first_y + 1))
        return *along_x, *along_y


def raster_for(shape: Shape, convolutions: list[LinearMap]) -> Raster:
    """The least blocks in which planes and windows of a chain of convolutions have room, gaps included.

    Sides are powers of two, so that rotations by doublings add up windows; planes that no convolution reads are not
    padded.
    """
    if not convolutions:
        return Raster(shape[1], shape[2])
    sides = []
    for axis in (0, 1):
        gap, extent = 1, shape[axis + 1]
        for linear in convolutions:
            (first, last), outputs = _reach(linear, axis), linear.out_shape[axis + 1]
            stride = strides(linear)[axis] if outputs > 1 else 1
            window = power_of_two(last - first + 1)
            extent = max(extent, gap * (window - 1) + 1, gap * stride * (outputs - 1) + 1)
            gap *= stride
        sides.append(power_of_two(extent))
    return Raster(sides[0], sides[1])


@dataclass(frozen=True, eq=False)
class Planes:
    """A tensor of planes: ConvPack (a ciphertext for each channel) or DensePack (a block of slots for each)."""

    places: SlotMap
    raster: Raster


def planes(shape: Shape, raster: Raster, slots: int, *, dense: bool) -> Planes:
    """Planes in ConvPack, or as many channels to a ciphertext as have room (DensePack)."""
    if raster.block > slots:
        raise LayoutError(f"a block of {raster.height} x {raster.width} does not fit {slots} slots")
    a_ciphertext = slots // raster.block if dense else 1
    channel = np.arange(shape[0])
    pixels = raster.pixels(shape[1], shape[2])
    ciphertext = np.repeat(channel // a_ciphertext, pixels.size)
    slot = (channel % a_ciphertext * raster.block)[:, None] + pixels
    kind = f"DensePack in {raster.height}x{raster.width} blocks" if dense else "ConvPack"
    several = _in_several(-(-shape[0] // a_ciphertext))
    return Planes(
        SlotMap(shape, slots, ciphertext, slot.reshape(-1) % slots, named(shape) + f" {kind}{several}"), raster
    )


@dataclass(frozen=True, eq=False)
class Windows:
    """ConvPack of an input: one ciphertext for each channel and kernel tap of the first convolution.

    Attributes:
        map: the first convolution.
        slots: of a ciphertext.
        pixels: the slot of every output, where all taps have what they read for it.
    """

    map: LinearMap
    slots: int
    pixels: Index
    label: str = field(init=False)

    def __post_init__(self) -> None:
        require_room(self.pixels, self.slots)
        label = f"{named(self.map.in_shape)} ConvPack of {self._taps[0].size}x{self._taps[1].size} taps"
        object.__setattr__(self, "label", label)

    @cached_property
    def _taps(self) -> tuple[Index, Index]:
        return np.array(taps(self.map, 0) or (0,)), np.array(taps(self.map, 1) or (0,))

    def layout(self) -> Layout:
        pixels = self.pixels.reshape(self.map.out_shape[1:])
        return window_pack(self.map.in_shape, self._taps, strides(self.map), pixels, self.slots)

    def reads(self, linear: LinearMap) -> tuple[Index, Index]:
        """Ciphertext and slot in which every entry of the convolution finds its input."""
        _, y, x = np.unravel_index(linear.entries.rows, linear.out_shape)
        c, row, column = np.unravel_index(linear.entries.cols, linear.in_shape)
        (stride_y, stride_x), (taps_y, taps_x) = strides(linear), self._taps
        ty, tx = (
            np.searchsorted(t, read) for t, read in ((taps_y, row - stride_y * y), (taps_x, column - stride_x * x))
        )
        return (c * taps_y.size + ty) * taps_x.size + tx, self.pixels[y * linear.out_shape[2] + x]


def named(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _in_several(ciphertexts: int) -> str:
    return f", {ciphertexts} ciphertexts" if ciphertexts > 1 else ""

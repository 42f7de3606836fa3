"""Falcon as published: block-circulant layers in the frequency domain.

Falcon: Lou, Lu, Hong and Jiang, "Falcon: Fast Spectral Inference on Encrypted Data", NeurIPS 2020. A homomorphic DFT of
every block of k channels, then dot products that give all k frequencies of a block of outputs at once, then the
inverse. What the publication leaves open, and what is chosen here: docs/ffconv.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from heinfer.baselines.layers import Evaluation, LinearLayer
from heinfer.baselines.recipes import Gather, Recipe, Rows, Transform, identity
from heinfer.baselines.slot_maps import Raster, SlotMap, doublings, named, subset_sums
from heinfer.errors import LayoutError
from heinfer.layout.layout import FREE, ZERO
from heinfer.layout.packings import power_of_two
from heinfer.network.join import Index

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Segments:
    """Blocks of channels in segments: a ciphertext is cut into k of them, and each holds one channel of every block.

    So a rotation by segments, which is cyclic, brings any channel of all blocks to any other: a DFT takes k diagonals.

    Attributes:
        block: k.
        slots: of a ciphertext.
        ciphertext, slot: of the first channel of every block and pixel, shape (blocks * pixels,).
        sums: rotations that add up the blocks of a ciphertext.
        free: steps from one copy of the blocks to the others.
        raster: where pixels are, for blocks of planes; None for blocks of elements.
    """

    block: int
    slots: int
    ciphertext: Index
    slot: Index
    sums: tuple[int, ...]
    free: tuple[int, ...] = ()
    raster: Raster | None = None

    @property
    def step(self) -> int:
        """From a segment to the next."""
        return self.slots // self.block

    def places(self, shape: Shape, *, spectral: bool, others: int = ZERO) -> SlotMap:
        """Of a tensor: channels j k + r in segment r, or those of a spectrum, q blocks + j.

        Real parts of frequencies are in the first half of the segments, imaginary parts in the other.
        """
        pixels = self._pixels(shape)
        channel, pixel = np.divmod(np.arange(prod(shape)), pixels)
        if spectral:
            blocks = self.slot.size // pixels
            row, j = np.divmod(channel, blocks)
            segment = row // 2 + row % 2 * (self.block // 2)
        else:
            j, segment = np.divmod(channel, self.block)
        base = j * pixels + pixel
        what = "spectrum" if spectral else "blocks"
        label = (
            f"{named(shape)} {what} in {self.block} segments{f', {1 << len(self.free)} copies' if self.free else ''}"
        )
        slot = (self.slot[base] + segment * self.step) % self.slots
        return SlotMap(shape, self.slots, self.ciphertext[base], slot, label, self.free, others)

    def _pixels(self, shape: Shape) -> int:
        return prod(shape[1:]) if self.raster else 1


@dataclass(frozen=True, eq=False)
class Segmented:
    """A tensor in segments."""

    places: SlotMap
    segments: Segments


def segments(shape: Shape, slots: int, block: int, raster: Raster | None, *, copied: bool) -> Segments:
    """Segments of a tensor: planes in a raster, or elements, repeated as often as they fit.

    LayoutError when a segment has no room for a plane.
    """
    pixels = raster.pixels(shape[1], shape[2]) if raster else np.zeros(1, dtype=np.int64)
    size = raster.block if raster else 1
    channels = shape[0] if raster else prod(shape)
    blocks, room = -(-channels // block), slots // block // size
    if not room:
        raise LayoutError(f"{block} segments of {slots} slots have no room for planes of {size}")
    width = min(power_of_two(blocks), room)
    j = np.arange(blocks)
    ciphertext = np.repeat(j // room, pixels.size)
    slot = (j % room * size)[:, None] + pixels
    free = doublings(width * size, slots // block) if copied and not raster else ()
    sums = tuple(size * step for step in doublings(1, width))
    return Segments(block, slots, ciphertext, slot.reshape(-1), sums, free, raster)


def segments_for(
    layer: LinearLayer, shape: Shape, slots: int, raster: Raster | None, *, copied: bool = True
) -> Segmented:
    """A tensor as the block-circulant layer that reads it wants it."""
    found = segments(shape, slots, layer.block, raster if is_planar(layer) else None, copied=copied)
    return Segmented(found.places(shape, spectral=False), found)


def is_planar(layer: LinearLayer) -> bool:
    """Whether a layer's blocks are of planes, not of elements."""
    return len(layer.map.in_shape) == len(layer.map.out_shape) == 3


def window_slots(shape: Shape, slots: int, block: int) -> Index:
    """The slot of every pixel of windows whose channels go into segments of elements: pixel after pixel."""
    segment, pixel = np.arange(prod(shape[1:])) % block, np.arange(prod(shape[1:])) // block
    return segment * (slots // block) + pixel


def to_spectrum(layer: LinearLayer, source: Segmented) -> tuple[list[Recipe], Segmented]:
    """The homomorphic DFT: k diagonals a ciphertext, those of what is merged with it beside."""
    now, shape = source.segments, layer.map.out_shape
    if now.raster and layer.map.in_shape[1:] != shape[1:]:
        now = segments(shape, now.slots, now.block, now.raster.after(layer.map), copied=False)
    target = Segmented(now.places(shape, spectral=True), now)
    return [Transform(layer.name, layer.map, source.places, target.places)], target


def spectral(layer: LinearLayer, source: Segmented, following: list[LinearLayer]) -> tuple[list[Recipe], Segmented]:
    """A dot product for every block of outputs (and pixel): k sums in a ciphertext, one in each segment."""
    before, shape = source.segments, layer.map.out_shape
    if before.raster:
        ends, after = _corners(layer, before)
        sums = (*before.raster.window(layer.map), *before.sums)
    else:
        ends, after = _stacked(shape, before, copied=_reads_elements(following[1:]))
        sums = before.sums
    rows_end = ends.places(shape, spectral=True, others=FREE)
    turns = (0, before.slots // 2) if before.block > 2 else (0,)
    rows = Rows(layer.name, layer.map, source.places, rows_end, sums, in_place=True, turns=turns)
    target = Segmented(after.places(shape, spectral=True), after)
    masks = Gather(f"{layer.name}: mask", identity(shape), rows_end, target.places)
    return [rows, masks], target


def _reads_elements(following: list[LinearLayer]) -> bool:
    """Whether the layer after the inverse is block-circulant in blocks of elements."""
    return bool(following) and following[0].evaluation is Evaluation.TO_SPECTRUM and not is_planar(following[0])


def _corners(layer: LinearLayer, before: Segments) -> tuple[Segments, Segments]:
    """Where the sums over windows end, a ciphertext for every block and pixel; and in few ciphertexts."""
    assert before.raster
    raster, shape = before.raster.after(layer.map), layer.map.out_shape
    after = segments(shape, before.slots, before.block, raster, copied=False)
    number = np.arange(after.slot.size)
    corner = np.resize(raster.pixels(shape[1], shape[2]), number.size)
    return replace(after, ciphertext=number, slot=corner), after


def _stacked(shape: Shape, before: Segments, *, copied: bool) -> tuple[Segments, Segments]:
    """Where the sums of rows end, a block at the beginning of each copy of the source; and interleaved."""
    number = np.arange(-(-prod(shape) // before.block))
    if len(before.free) + len(before.sums) < (before.step - 1).bit_length():  # without copies
        ends = replace(before, ciphertext=number, slot=0 * number)
        return ends, segments(shape, before.slots, before.block, None, copied=copied)
    copy, within = subset_sums(before.free), subset_sums(before.sums)
    stack = number // copy.size
    ends = replace(before, ciphertext=stack, slot=copy[number % copy.size], free=())
    slot = copy[number % copy.size] + within[stack % within.size]
    used = (power_of_two(-(-number.size // copy.size)) - 1).bit_length()
    sums = before.free + before.sums[:used]
    free = before.sums[used:] if copied else ()
    return ends, replace(before, ciphertext=number // before.step, slot=slot, sums=sums, free=free)

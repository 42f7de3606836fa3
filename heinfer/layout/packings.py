"""Named layouts: DensePack, ConvPack and their relatives, all values of one type.

Planes: the slots of a ciphertext are divided into blocks of ``height x width`` slots, one block a
plane. A plane may leave gaps (every gap-th row and column is used), which is what a strided
convolution leaves behind, and further channels may live in the gaps (multiplexed packing: Lee et
al., "Low-Complexity Deep Convolutional Neural Networks on FHE", ICML 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heinfer.errors import LayoutError
from heinfer.layout.layout import FREE, ZERO, Layout


def power_of_two(n: int) -> int:
    """The least power of two >= n."""
    return 1 << (n - 1).bit_length()


@dataclass(frozen=True)
class Grid:
    """How planes sit in slots: blocks of ``height x width``, of which every gap-th row and column is used."""

    height: int
    width: int
    gap_y: int = 1
    gap_x: int = 1

    @property
    def block(self) -> int:
        """Slots of one block."""
        return self.height * self.width

    @property
    def gap_steps(self) -> tuple[int, ...]:
        """Rotations that add up everything in the gaps of one position: 1, 2, ... along x, then along y."""
        along_x = tuple(1 << i for i in range(self.gap_x.bit_length() - 1))
        along_y = tuple(self.width << i for i in range(self.gap_y.bit_length() - 1))
        return along_x + along_y

    def strided(self, y: int, x: int) -> Grid:
        """The grid of a map whose stride widens the gaps."""
        return Grid(self.height, self.width, self.gap_y * y, self.gap_x * x)

    def holds(self, height: int, width: int) -> bool:
        return height * self.gap_y <= self.height and width * self.gap_x <= self.width


def dense_pack(shape: tuple[int, ...], slots: int) -> Layout:
    """DensePack: the whole tensor, row-major, in as few ciphertexts as hold it; the rest is zero."""
    size = prod(shape)
    ciphertexts = -(-size // slots)
    index = np.arange(ciphertexts * slots)
    return Layout(shape, np.where(index < size, index, ZERO).reshape(ciphertexts, slots))


def require_room(pixels: NDArray[np.int64], slots: int) -> None:
    """Refuse a plane of outputs that has a slot beyond those of a ciphertext, by LayoutError."""
    if pixels.max(initial=0) >= slots:
        raise LayoutError(f"a plane of outputs reaches over {pixels.max() + 1} slots and there are {slots}")


def window_pack(
    shape: tuple[int, ...],
    taps: tuple[NDArray[np.int64], NDArray[np.int64]],
    stride: tuple[int, int],
    pixels: NDArray[np.int64],
    slots: int,
) -> Layout:
    """ConvPack of an input (LoLa's convolution format): one ciphertext for each channel and kernel tap.

    Args:
        taps: along each axis, where the output 0 reads.
        pixels: (outputs along y, outputs along x): the slot in which every tap has what it reads for that output.

    Pixels that no tap reads are in ciphertexts of their own.
    """
    channels, height, width = shape
    c, ky, kx, y, x = np.ix_(np.arange(channels), *taps, *(np.arange(n) for n in pixels.shape))
    row, column = y * stride[0] + ky, x * stride[1] + kx
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    held = np.where(inside, (c * height + row) * width + column, ZERO).reshape(-1, pixels.size)
    require_room(pixels, slots)
    index = np.full((len(held), slots), ZERO)
    index[:, pixels.reshape(-1)] = held
    unread = np.setdiff1d(np.arange(prod(shape)), held)
    if unread.size:
        rest = dense_pack((unread.size,), slots).index
        index = np.concatenate([index, np.where(rest == ZERO, ZERO, unread[rest])])
    return Layout(shape, index)


@dataclass(frozen=True)
class Samples:
    """What the planes of an input take along one axis: plane j holds coordinates offsets[j] + step * i, i < length.

    Stride phases are ``step`` offsets 0, 1, ...; the taps of a kernel are its offsets, at its stride, one for each
    output.
    """

    step: int
    offsets: tuple[int, ...]
    length: int

    @classmethod
    def phases(cls, size: int, stride: int) -> Samples:
        return cls(stride, tuple(range(stride)), -(-size // stride))


def sample_pack(shape: tuple[int, int, int], y: Samples, x: Samples, grid: Grid, slots: int) -> Layout:
    """Planes of samples of every channel (c, y, x in this order), repeated to fill a ciphertext, or in several.

    With stride phases along an axis (space to depth) every tap of a convolution of that stride reads at a shift that
    is the same for all outputs. With its taps (a part of im2col) it reads at no shift at all.
    """
    channels, height, width = shape
    if not grid.holds(y.length, x.length):
        raise LayoutError(f"planes of {y.length} x {x.length} do not fit {grid}")
    c, oy, ox, i, j = np.ix_(
        np.arange(channels), np.array(y.offsets), np.array(x.offsets), np.arange(y.length), np.arange(x.length)
    )
    row, column = oy + y.step * i, ox + x.step * j
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    held = np.where(inside, (c * height + row) * width + column, ZERO).reshape(-1, y.length, x.length)
    blocks = max(1, slots // grid.block)
    count = power_of_two(len(held)) if len(held) <= blocks else -(-len(held) // blocks) * blocks
    planes = np.full((count, grid.height, grid.width), ZERO)
    planes[: len(held), : y.length * grid.gap_y : grid.gap_y, : x.length * grid.gap_x : grid.gap_x] = held
    return Layout(shape, _fill(planes.reshape(-1), slots))


def phase_pack(shape: tuple[int, int, int], stride: tuple[int, int], grid: Grid, slots: int) -> Layout:
    """The stride phases of every channel (space to depth), each a plane of its own, the whole repeated to fill."""
    y, x = (Samples.phases(n, s) for n, s in zip(shape[1:], stride, strict=True))
    return sample_pack(shape, y, x, grid, slots)


def plane_pack(
    shape: tuple[int, int, int],
    grid: Grid,
    slots: int,
    turn: int = 0,
    phases: tuple[int, int] = (1, 1),
    gaps: int | None = None,
) -> Layout:
    """One plane a channel and stride phase; copies fill the slots, copy k in an order rotated by k * turn planes.

    Planes and copies use the first ``gaps`` places of the gaps, along x first, by default as few as hold the planes;
    planes beyond those are in further ciphertexts. Slots that no plane uses are FREE.
    """
    planes = _planes(shape, phases)
    count, height, width = planes.shape
    if not grid.holds(height, width):
        raise LayoutError(f"planes of {height} x {width} do not fit {grid}")
    blocks = slots // grid.block
    if not blocks:
        raise LayoutError(f"a block of {grid.block} slots does not fit {slots} slots")
    padded = power_of_two(count)
    gaps = gaps or min(-(-count // blocks), grid.gap_y * grid.gap_x)
    ciphertexts = -(-count // (blocks * gaps))
    index = np.full((ciphertexts, blocks, grid.height, grid.width), FREE)
    for place in range(ciphertexts * gaps * blocks):
        copy, within = divmod(place, padded)
        plane = (within + copy * turn) % padded
        if plane < count:
            ciphertext, rest = divmod(place, gaps * blocks)
            gap, block = divmod(rest, blocks)
            rows = slice(gap // grid.gap_x, height * grid.gap_y, grid.gap_y)
            columns = slice(gap % grid.gap_x, width * grid.gap_x, grid.gap_x)
            index[ciphertext, block, rows, columns] = planes[plane]
    return Layout(shape, index.reshape(ciphertexts, slots))


def _planes(shape: tuple[int, int, int], phases: tuple[int, int]) -> np.ndarray[tuple[int, int, int], np.dtype[Any]]:
    """Elements of every channel's every phase, FREE where a phase is shorter than the first: (planes, y, x).

    One phase of all channels comes after the other, so that ciphertexts hold different phases; where channels are no
    power of two a phase would begin anywhere, and one channel comes after the other.
    """
    channels, height, width = shape
    size = [-(-n // p) for n, p in zip((height, width), phases, strict=True)]
    padded = np.full((channels, size[0] * phases[0], size[1] * phases[1]), FREE)
    padded[:, :height, :width] = np.arange(channels * height * width).reshape(shape)
    split = padded.reshape(channels, size[0], phases[0], size[1], phases[1])
    order = (2, 4, 0, 1, 3) if channels == power_of_two(channels) else (0, 2, 4, 1, 3)
    return split.transpose(order).reshape(-1, *size)


def cyclic_pack(shape: tuple[int, ...], slots: int, zeros: int = 0) -> Layout:
    """The flattened tensor, padded to a power of two with so many zeros at least, and repeated to fill the slots."""
    size = prod(shape)
    padded = np.full(power_of_two(size + zeros), ZERO)
    padded[:size] = np.arange(size)
    return Layout(shape, _fill(padded, slots))


def _fill(
    index: np.ndarray[tuple[int], np.dtype[np.int64]], slots: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Repeat an index of a power-of-two length over one ciphertext, or cut it into several."""
    if index.size >= slots:
        return index.reshape(-1, slots)
    return np.tile(index, slots // index.size)[None]

"""Named layouts: DensePack, ConvPack and their relatives, all values of one type.

Planes: the slots of a ciphertext are divided into blocks of ``height x width`` slots, one block a
plane. A plane may leave gaps (every gap-th row and column is used), which is what a strided
convolution leaves behind, and further channels may live in the gaps (multiplexed packing: Lee et
al., "Low-Complexity Deep Convolutional Neural Networks on FHE", ICML 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

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


def conv_pack(shape: tuple[int, int, int], slots: int) -> Layout:
    """ConvPack: one ciphertext a channel; a 1 x 1 convolution is then scalar multiply-adds without rotations."""
    channels, *plane = shape
    if prod(plane) > slots:
        raise LayoutError(f"a plane of {prod(plane)} elements does not fit {slots} slots")
    index = np.full((channels, slots), ZERO)
    index[:, : prod(plane)] = np.arange(prod(shape)).reshape(channels, -1)
    return Layout(shape, index)


def window_pack(
    shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], slots: int
) -> Layout:
    """ConvPack of an input (LoLa's convolution format): one ciphertext for each channel and kernel tap.

    Slot y * width + x of the ciphertext of tap (ky, kx) holds the pixel that the tap reads for output (y, x).
    """
    channels, height, width = shape
    out_y = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
    out_x = (width + 2 * padding[1] - kernel[1]) // stride[1] + 1
    if out_y * out_x > slots:
        raise LayoutError(f"{out_y} x {out_x} outputs do not fit {slots} slots")
    c, ky, kx, y, x = np.ix_(*(np.arange(n) for n in (channels, *kernel, out_y, out_x)))
    in_y, in_x = y * stride[0] + ky - padding[0], x * stride[1] + kx - padding[1]
    inside = (in_y >= 0) & (in_y < height) & (in_x >= 0) & (in_x < width)
    held = np.where(inside, (c * height + in_y) * width + in_x, ZERO).reshape(-1, out_y * out_x)
    index = np.full((held.shape[0], slots), ZERO)
    index[:, : held.shape[1]] = held
    return Layout(shape, index)


def phase_pack(shape: tuple[int, int, int], stride: tuple[int, int], grid: Grid, slots: int) -> Layout:
    """The stride phases of every channel (space to depth), each a plane of its own, the whole repeated to fill.

    Under a convolution of that stride every tap then reads at a shift that is the same for all outputs.
    """
    height, width = (-(-n // s) for n, s in zip(shape[1:], stride, strict=True))
    if not grid.holds(height, width):
        raise LayoutError(f"phases of {height} x {width} do not fit {grid}")
    phases = shape[0] * prod(stride)
    planes = np.full((power_of_two(phases), grid.height, grid.width), ZERO)
    c, y, x = np.indices(shape)
    plane = (c * stride[0] + y % stride[0]) * stride[1] + x % stride[1]
    planes[plane, y // stride[0], x // stride[1]] = np.arange(prod(shape)).reshape(shape)
    return Layout(shape, _fill(planes.reshape(-1), slots))


def plane_pack(shape: tuple[int, int, int], grid: Grid, slots: int, turn: int = 0) -> Layout:
    """One plane a channel; copies fill the slots, copy k in a channel order rotated by k * turn.

    Channels beyond the blocks of a ciphertext use the gaps (along x first), then further ciphertexts.
    Slots that no channel uses are FREE.
    """
    channels, height, width = shape
    if not grid.holds(height, width):
        raise LayoutError(f"planes of {height} x {width} do not fit {grid}")
    blocks = slots // grid.block
    if not blocks:
        raise LayoutError(f"a block of {grid.block} slots does not fit {slots} slots")
    padded = power_of_two(channels)
    in_gaps = min(-(-channels // blocks), grid.gap_y * grid.gap_x)
    ciphertexts = -(-channels // (blocks * in_gaps))
    index = np.full((ciphertexts, blocks, grid.height, grid.width), FREE)
    plane = np.arange(height * width).reshape(height, width)
    for place in range(ciphertexts * in_gaps * blocks):
        copy, within = divmod(place, padded)
        channel = (within + copy * turn) % padded
        if channel < channels:
            ciphertext, rest = divmod(place, in_gaps * blocks)
            gap, block = divmod(rest, blocks)
            rows = slice(gap // grid.gap_x, height * grid.gap_y, grid.gap_y)
            columns = slice(gap % grid.gap_x, width * grid.gap_x, grid.gap_x)
            index[ciphertext, block, rows, columns] = channel * height * width + plane
    return Layout(shape, index.reshape(ciphertexts, slots))


def cyclic_pack(shape: tuple[int, ...], slots: int) -> Layout:
    """The flattened tensor, padded to a power of two with zeros and repeated to fill the slots."""
    size = prod(shape)
    padded = np.full(power_of_two(size), ZERO)
    padded[:size] = np.arange(size)
    return Layout(shape, _fill(padded, slots))


def _fill(
    index: np.ndarray[tuple[int], np.dtype[np.int64]], slots: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Repeat an index of a power-of-two length over one ciphertext, or cut it into several."""
    if index.size >= slots:
        return index.reshape(-1, slots)
    return np.tile(index, slots // index.size)[None]

"""Candidate layouts: what the search over layouts may choose from for each tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from heinfer.layout.layout import Layout
from heinfer.layout.packings import Grid, cyclic_pack, phase_pack, plane_pack, power_of_two
from heinfer.network.linear_map import LinearMap
from heinfer.planner.join import Index, distinct

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A layout a tensor may have.

    Attributes:
        layout: where its elements are.
        folds: rotations that complete the sums of the layer before it.
        grid: in which its planes sit, None when it is flat.
        label: what it is, for reports.
        phases: whether the planes are the phases of the next layer's stride, which then leaves no gaps.
    """

    layout: Layout
    folds: tuple[int, ...]
    grid: Grid | None
    label: str
    phases: bool = False


def input_candidates(first: LinearMap, slots: int) -> Iterator[Candidate]:
    """Layouts in which a client may send the input of the first layer."""
    shape = first.in_shape
    if len(shape) != 3 or len(first.out_shape) != 3:
        yield Candidate(cyclic_pack(shape, slots), (), None, f"{_name(shape)} cyclic")
        return
    stride = strides(first)
    planes = zip(shape[1:], stride, first.out_shape[1:], strict=True)
    grid = Grid(*(power_of_two(max(-(-n // s), out)) for n, s, out in planes))
    layout = phase_pack((shape[0], shape[1], shape[2]), stride, grid, slots)
    label = f"{_name(shape)} DensePack, {prod(stride)} stride phases in {grid.height}x{grid.width} blocks"
    yield Candidate(layout, (), grid, label + _copies(layout), phases=True)


def output_candidates(linear: LinearMap, source: Candidate, slots: int) -> Iterator[Candidate]:
    """Layouts that an affine layer may produce from a source."""
    shape = linear.out_shape
    if len(shape) == 3 and source.grid is not None:
        yield from _plane_candidates(
            (shape[0], shape[1], shape[2]), _widened(linear, source.grid, source.phases), slots
        )
    elif power_of_two(prod(shape)) <= slots:
        yield _flat_candidate(shape, slots)


@lru_cache(maxsize=64)
def strides(linear: LinearMap) -> tuple[int, int]:
    """The strides of a map between planes: those under which its outputs read at the fewest offsets."""
    outputs = np.unravel_index(linear.rows, linear.out_shape)
    reads = np.unravel_index(linear.cols, linear.in_shape)
    y, x = (_stride(outputs[axis], reads[axis], -(-linear.in_shape[axis] // linear.out_shape[axis])) for axis in (1, 2))
    return y, x


def _stride(output: Index, read: Index, most: int) -> int:
    """Among equals the largest: its gaps are room for sums and for further channels."""
    return min(range(most, 0, -1), key=lambda stride: distinct(read - stride * output).size)


def _flat_candidate(shape: Shape, slots: int) -> Candidate:
    """Every slot ends with a complete output: fold cyclically by all multiples of the padded length."""
    length = power_of_two(prod(shape))
    return Candidate(cyclic_pack(shape, slots), _doublings(length, slots), None, f"{_name(shape)} cyclic in every slot")


def _widened(linear: LinearMap, grid: Grid, phases: bool) -> Grid:
    """The grid of an output: its stride widens the gaps, unless it reads stride phases.

    An output that outgrows the grid of its source gets larger blocks.
    """
    _, height, width = linear.out_shape
    grids = [grid, Grid(power_of_two(height), power_of_two(width))]
    if len(linear.in_shape) == 3 and not phases:
        grids.insert(0, grid.strided(*strides(linear)))
    return next(g for g in grids if g.holds(height, width))


def _plane_candidates(shape: tuple[int, int, int], grid: Grid, slots: int) -> Iterator[Candidate]:
    channels = power_of_two(shape[0])
    blocks = slots // grid.block
    if not grid.holds(shape[1], shape[2]) or not blocks:
        return
    base = f"{_name(shape)} in {grid.height}x{grid.width} blocks"
    plain = plane_pack(shape, grid, slots)
    if channels > blocks:
        yield Candidate(plain, (), grid, f"{base}, channels in the gaps too" + _copies(plain))
        return
    block_folds = _doublings(channels * grid.block, slots)
    for gap_folds in dict.fromkeys([(), grid.gap_steps]):
        for folds in dict.fromkeys([(), block_folds]):
            summed = [what for what, f in (("gaps", gap_folds), ("blocks", folds)) if f]
            note = f", folded over {' and '.join(summed)}" if summed else ""
            yield Candidate(plain, gap_folds + folds, grid, base + _copies(plain) + note)
    if channels < blocks:
        for turn in _turns(channels):
            turned = plane_pack(shape, grid, slots, turn)
            yield Candidate(turned, (), grid, f"{base}{_copies(turned)}, copies rotated by {turn} channels")


def _turns(channels: int) -> Iterator[int]:
    turn = 1
    while turn < channels:
        yield turn
        turn *= 2


def _doublings(first: int, slots: int) -> tuple[int, ...]:
    """first, 2 first, 4 first, ... below the slots: folds over a cyclic subgroup."""
    steps = []
    while first < slots:
        steps.append(first)
        first *= 2
    return tuple(steps)


def _name(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _copies(layout: Layout) -> str:
    copies = int((layout.index >= 0).sum()) // layout.size
    return f", {copies} copies" if copies > 1 else ""

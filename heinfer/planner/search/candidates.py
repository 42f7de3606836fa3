"""Candidate layouts: what the search over layouts may choose from for each tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np

from heinfer.errors import LayoutError
from heinfer.layout.layout import FREE, ZERO, Layout
from heinfer.layout.packings import Grid, Samples, cyclic_pack, dense_pack, plane_pack, power_of_two, sample_pack
from heinfer.network.join import distinct
from heinfer.network.linear_map import LinearMap

Shape = tuple[int, ...]

OUTPUT_ZEROS = 2
"""Slots of every copy of the scores, at least, that hold zero: by them a client sees that an answer has wrapped round,
whatever the scores look like. One would leave something to chance where scores are few."""


_MOST_APART = 8
"""Times the ciphertexts of a tensor, at most, that it may take for the sake of sums over gaps."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A layout a tensor may have.

    Attributes:
        layout: where its elements are.
        reductions: rotations that complete the sums of the layer before it.
        grid: in which its planes sit, None when it is flat.
        label: what it is, for reports.
        phases: along each axis into how many stride phases its planes are split. A stride that divides them
            leaves fewer phases, any other leaves gaps.
    """

    layout: Layout
    reductions: tuple[int, ...]
    grid: Grid | None
    label: str
    phases: tuple[int, int] = (1, 1)


def input_candidates(first: LinearMap, slots: int) -> Iterator[Candidate]:
    """Layouts in which a client may send the input of the first layer.

    Along each axis of an image: the phases of the first layer's stride, twice or four times as many (which later
    strides use up, and smaller blocks), or every tap of its kernel, ready to be multiplied.
    """
    shape = first.in_shape
    if len(shape) != 3 or len(first.out_shape) != 3:
        yield Candidate(flat_pack(shape, slots), (), None, f"{_name(shape)} cyclic")
        return
    height, width = ((shape[axis + 1], strides(first)[axis]) for axis in (0, 1))
    phases = [Samples.phases(*axis) for axis in (height, width)]
    kernel = [_every_tap(first, axis) for axis in (0, 1)]
    finer = ([Samples.phases(size, stride * factor) for size, stride in (height, width)] for factor in (2, 4))
    chosen = [phases, *(axes for axes in finer if max(axis.length for axis in axes) >= 2)]
    chosen += [[kernel[0], phases[1]], [phases[0], kernel[1]], kernel]
    for y, x in chosen:
        yield from _samples(first, y, x, slots)


def split_input_candidates(first: LinearMap, slots: int) -> Iterator[Candidate]:
    """Layouts whose first outputs have two phases along one axis: of a tensor in two ciphertexts, one in each.

    Between ciphertexts a diagonal goes from one phase to one other, so that a stride to come leaves no gaps along the
    axis and no diagonal is half empty for it.
    """
    if len(first.in_shape) != 3 or len(first.out_shape) != 3:
        return
    for split in (0, 1):
        ways = []
        for axis in (0, 1):
            size, stride = first.in_shape[axis + 1], strides(first)[axis]
            phases = Samples.phases(size, stride * (2 if axis == split else 1))
            ways.append([phases] if axis == split else [phases, _every_tap(first, axis)])
        for y, x in product(*ways):
            yield from _samples(first, y, x, slots)


def _every_tap(first: LinearMap, axis: int) -> Samples:
    return Samples(strides(first)[axis], taps(first, axis), first.out_shape[axis + 1])


def _samples(first: LinearMap, y: Samples, x: Samples, slots: int) -> Iterator[Candidate]:
    shape = (first.in_shape[0], first.in_shape[1], first.in_shape[2])
    # A padded convolution may have more outputs than its input has samples.
    outputs = (-(-n * s // axis.step) for n, s, axis in zip(first.out_shape[1:], strides(first), (y, x), strict=True))
    grid = Grid(*(power_of_two(max(axis.length, n)) for axis, n in zip((y, x), outputs, strict=True)))
    try:
        layout = sample_pack(shape, y, x, grid, slots)
    except LayoutError:  # no room, or a pixel that no tap reads
        return
    along = [
        f"{len(axis.offsets)} {what} {'phases' if len(axis.offsets) == axis.step else 'taps'}"
        for axis, what in ((y, "row"), (x, "column"))
    ]
    label = f"{_name(shape)} as {' x '.join(along)} in {grid.height}x{grid.width} blocks" + _in_several(layout)
    yield Candidate(layout, (), grid, label, phases=(y.step, x.step))


def output_candidates(linear: LinearMap, source: Candidate, slots: int, last: bool = False) -> Iterator[Candidate]:
    """Layouts that an affine layer may produce from a source; the last one's leave zeros, if there is room."""
    shape = linear.out_shape
    if len(shape) == 3 and source.grid is not None:
        planes = (shape[0], shape[1], shape[2])
        yield from _plane_candidates(planes, *_natural(linear, source.grid, source.phases), slots)
    else:
        yield _flat_candidate(shape, slots, zeros=OUTPUT_ZEROS if last else 0)


def target_candidates(
    maps: Sequence[LinearMap], sources: Sequence[Candidate], slots: int, last: bool = False
) -> Iterator[Candidate]:
    """Layouts that an affine layer may produce from all that it reads: what any of it suggests, and as that is."""
    if len(sources) == 1:
        yield from output_candidates(maps[0], sources[0], slots, last)
        return
    found: dict[object, Candidate] = {}
    for linear, source in zip(maps, sources, strict=True):
        for candidate in output_candidates(linear, source, slots, last):
            found.setdefault((candidate.layout, candidate.reductions), candidate)
    planes = [candidate for candidate in found.values() if candidate.grid]
    yield from planes or found.values()


def alike_candidates(partner: Candidate) -> Iterator[Candidate]:
    """Where a tensor may be that is multiplied with one that is somewhere: there, whatever its sums are added up by.

    Where that one is known to hold zero, this one may hold anything.
    """
    index = partner.layout.index
    layout = Layout(partner.layout.shape, np.where(index == ZERO, FREE, index))
    cyclic = _doublings(partner.layout.period, partner.layout.slots)
    for reductions in dict.fromkeys([(), cyclic, partner.reductions]):
        yield replace(partner, layout=layout, reductions=reductions)


def without_free_slots(candidate: Candidate) -> Candidate:
    """A layout whose unused slots hold zero: there are no reductions that leave sums in them."""
    index = candidate.layout.index
    return replace(candidate, layout=Layout(candidate.layout.shape, np.where(index == FREE, ZERO, index)))


@lru_cache(maxsize=256)
def taps(linear: LinearMap, axis: int) -> tuple[int, ...]:
    """Offsets at which the outputs of a map between planes read, relative to their stride, along one axis."""
    outputs, reads = linear.along(axis)
    return tuple(distinct(reads - strides(linear)[axis] * outputs).tolist())


@lru_cache(maxsize=256)
def strides(linear: LinearMap) -> tuple[int, int]:
    """The strides of a map between planes: those under which its outputs read at the fewest offsets."""
    return _stride(linear, 0), _stride(linear, 1)


def _stride(linear: LinearMap, axis: int) -> int:
    """Among equals the largest: its gaps are room for sums and for further channels."""
    outputs, reads = linear.along(axis)
    most = -(-linear.in_shape[axis + 1] // linear.out_shape[axis + 1])
    return min(range(most, 0, -1), key=lambda stride: distinct(reads - stride * outputs).size)


def flat_pack(shape: Shape, slots: int) -> Layout:
    """The flattened tensor, repeated to fill a ciphertext, or in as few as hold it."""
    return cyclic_pack(shape, slots) if power_of_two(prod(shape)) <= slots else dense_pack(shape, slots)


def _flat_candidate(shape: Shape, slots: int, zeros: int = 0) -> Candidate:
    """Every slot ends with a complete output: reduce cyclically over all multiples of the padded length."""
    size = prod(shape)
    if power_of_two(size + zeros) <= slots:
        reductions, layout = _doublings(power_of_two(size + zeros), slots), cyclic_pack(shape, slots, zeros)
    else:
        reductions, layout = _doublings(power_of_two(size), slots), flat_pack(shape, slots)
    return Candidate(layout, reductions, None, f"{_name(shape)} cyclic in every slot" + _in_several(layout))


def _natural(linear: LinearMap, grid: Grid, phases: tuple[int, int]) -> tuple[Grid, tuple[int, int]]:
    """Grid and phases that the output of a map falls into: its stride uses up phases, or else widens the gaps.

    An output that outgrows the grid of its source gets larger blocks.
    """
    stride = strides(linear) if len(linear.in_shape) == 3 else (1, 1)
    left = [p // s if p % s == 0 else 1 for p, s in zip(phases, stride, strict=True)]
    gaps = [1 if p % s == 0 else -(-s // p) for p, s in zip(phases, stride, strict=True)]
    height, width = (-(-n // p) for n, p in zip(linear.out_shape[1:], left, strict=True))
    grids = [grid.strided(gaps[0], gaps[1]), grid, Grid(power_of_two(height), power_of_two(width))]
    return next(g for g in grids if g.holds(height, width)), (left[0], left[1])


def _plane_candidates(
    shape: tuple[int, int, int], grid: Grid, phases: tuple[int, int], slots: int
) -> Iterator[Candidate]:
    planes = power_of_two(shape[0] * prod(phases))
    blocks, places = slots // grid.block, grid.gap_y * grid.gap_x
    if not blocks:
        return
    base = f"{_name(shape)} in {grid.height}x{grid.width} blocks"
    if phases != (1, 1):
        base += f" of {phases[0]}x{phases[1]} phases"
    plain = plane_pack(shape, grid, slots, phases=phases)
    base += _places(plain)
    if planes >= blocks:
        used = min(planes // blocks, places)
        note = ", planes in the gaps too" if used > 1 else ""
        left = grid.gap_steps[used.bit_length() - 1 :]
        yield Candidate(plain, (), grid, base + note, phases)
        if left:
            yield Candidate(plain, left, grid, f"{base}{note}, summed over gaps", phases)
        if 1 < used <= _MOST_APART:
            apart = plane_pack(shape, grid, slots, phases=phases, gaps=1)
            label = f"{_name(shape)} in {grid.height}x{grid.width} blocks{_in_several(apart)}, summed over gaps"
            yield Candidate(apart, grid.gap_steps, grid, label, phases)
        for copies in _doublings(2, places // used + 1):
            turned = plane_pack(shape, grid, slots, planes // copies, phases, used * copies)
            label = f"{base}{note}, {copies} copies there, rotated by {planes // copies} planes"
            yield Candidate(turned, (), grid, label, phases)
            left = grid.gap_steps[(used * copies).bit_length() - 1 :]
            if left:
                yield Candidate(turned, left, grid, f"{label}, summed over gaps", phases)
        return
    block_reductions = _doublings(planes * grid.block, slots)
    for gap_reductions in dict.fromkeys([(), grid.gap_steps]):
        for reductions in dict.fromkeys([(), block_reductions]):
            summed = [what for what, f in (("gaps", gap_reductions), ("blocks", reductions)) if f]
            note = f", summed over {' and '.join(summed)}" if summed else ""
            yield Candidate(plain, gap_reductions + reductions, grid, base + note, phases)
    for turn in _turns(planes):
        turned = plane_pack(shape, grid, slots, turn, phases)
        yield Candidate(turned, (), grid, f"{base}, copies rotated by {turn} planes", phases)


def _turns(channels: int) -> Iterator[int]:
    turn = 1
    while turn < channels:
        yield turn
        turn *= 2


def _doublings(first: int, slots: int) -> tuple[int, ...]:
    """first, 2 first, 4 first, ... below the slots: reductions over a cyclic subgroup."""
    steps = []
    while first < slots:
        steps.append(first)
        first *= 2
    return tuple(steps)


def _name(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _places(layout: Layout) -> str:
    copies = int((layout.index >= 0).sum()) // layout.size
    return (f", {copies} copies" if copies > 1 else "") + _in_several(layout)


def _in_several(layout: Layout) -> str:
    return f", {layout.ciphertexts} ciphertexts" if layout.ciphertexts > 1 else ""

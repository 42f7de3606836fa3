"""Layouts worth trying: what copies and sums in the gaps of a stride save, and what compact blocks would cost."""

import numpy as np
import pytest

from heinfer.layout.packings import Grid, plane_pack
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Convolution
from heinfer.planner.kernel.diagonals import DiagonalProblem
from heinfer.planner.kernel.linear import diagonal_sets
from heinfer.planner.search.candidates import Candidate, output_candidates

SLOTS = 16384
WHOLE, HALVES, QUARTERS = (Grid(32, 32, gap, gap) for gap in (1, 2, 4))


def convolution(inputs: int, outputs: int, size: int, stride: int) -> LinearMap:
    op = Convolution(np.ones((outputs, inputs, 3, 3)), np.zeros(outputs), (stride, stride), (1, 1))
    return op.linear_map((inputs, size, size))


def planes(channels: int, size: int, grid: Grid, turn: int = 0, gaps: int | None = None) -> Candidate:
    return Candidate(plane_pack((channels, size, size), grid, SLOTS, turn, gaps=gaps), (), grid, "")


def fewest(linear: LinearMap, source: Candidate, target: Candidate, reductions: tuple[int, ...] = ()) -> int:
    problem = DiagonalProblem(linear, source.layout, target.layout, reductions)
    return len(diagonal_sets(problem)[0])


def test_copies_in_the_gaps_make_slots_full() -> None:
    inner, narrow, copied = convolution(32, 32, 16, 1), planes(32, 16, HALVES), planes(32, 16, HALVES, 16, 4)
    assert fewest(inner, narrow, narrow) == 336
    assert fewest(inner, copied, narrow, (32,)) == 144 == inner.size // SLOTS + 12  # 12: what the padding saves


def test_compact_blocks_after_a_stride_cost_more_than_sums_over_the_gaps() -> None:
    stride, narrow, compact = convolution(32, 64, 16, 2), planes(32, 16, HALVES), Grid(8, 8)
    assert fewest(stride, narrow, planes(64, 8, QUARTERS), (32, 64)) == 288
    assert fewest(stride, narrow, planes(64, 8, compact), (4096, 8192)) == 4096


@pytest.mark.parametrize(
    ("inputs", "outputs", "labels"),
    [
        (16, 32, ["", ", 2 copies there", ", summed over gaps"]),
        (16, 16, ["", ", 2 copies there", ", 2 copies there, summed", ", 4 copies there", ", summed over gaps"]),
    ],
)
def test_gaps_carry_copies_or_sums(inputs: int, outputs: int, labels: list[str]) -> None:
    found = list(output_candidates(convolution(inputs, outputs, 32, 2), planes(inputs, 32, WHOLE), SLOTS))
    assert {candidate.layout.ciphertexts for candidate in found} == {1}
    assert len(found) == len({(candidate.layout, candidate.reductions) for candidate in found}) == len(labels)
    for candidate in found:
        held = candidate.layout.copies
        assert (held == held[0]).all(), candidate.label

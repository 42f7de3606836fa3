"""Layouts worth trying: what copies and sums in the gaps of a stride save, and what compact blocks would cost."""

import numpy as np
import pytest

from heinfer.layout.packings import Grid, plane_pack
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Convolution, Dense
from heinfer.planner.kernel.diagonals import DiagonalProblem
from heinfer.planner.kernel.linear import diagonal_sets
from heinfer.planner.search.candidates import Candidate, output_candidates, split_input_candidates

SLOTS = 16384
WHOLE, HALVES, QUARTERS = (Grid(32, 32, gap, gap) for gap in (1, 2, 4))


def convolution(inputs: int, outputs: int, size: int, stride: int, kernel: int = 3) -> LinearMap:
    op = Convolution(np.ones((outputs, inputs, kernel, kernel)), np.zeros(outputs), (stride, stride), (1, 1))
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


def test_a_phase_in_each_ciphertext_leaves_no_gaps_for_the_next_stride() -> None:
    slots, whole, tall = 1024, Grid(16, 16), Grid(8, 16)
    by_channel, by_phase = plane_pack((8, 16, 16), whole, slots), plane_pack((8, 16, 16), tall, slots, phases=(2, 1))
    gaps = plane_pack((32, 8, 8), whole.strided(2, 2), slots)
    narrow = plane_pack((32, 8, 8), tall.strided(1, 2), slots)
    assert {layout.ciphertexts for layout in (by_channel, by_phase, gaps, narrow)} == {2}
    for linear, channels, phases in (
        (convolution(8, 8, 16, 1), (by_channel, by_channel, 144), (by_phase, by_phase, 144)),
        (convolution(8, 32, 16, 2, kernel=4), (by_channel, gaps, 400), (by_phase, narrow, 320)),
        (convolution(32, 32, 8, 1), (gaps, gaps, 784), (narrow, narrow, 672)),
    ):
        for source, target, diagonals in (channels, phases):
            assert len(diagonal_sets(DiagonalProblem(linear, source, target))[0]) == diagonals


def test_inputs_that_are_split_give_outputs_of_two_phases_along_one_axis() -> None:
    first = convolution(3, 8, 32, 2)
    found = list(split_input_candidates(first, 1024))
    made = {(along.phases, along.grid) for inputs in found for along in output_candidates(first, inputs, 1024)}
    assert {phases for phases, _ in made} == {(2, 1), (1, 2)}
    assert {grid for _, grid in made} == {Grid(8, 16), Grid(16, 8)}
    assert not list(split_input_candidates(Dense(np.ones((4, 12)), np.zeros(4)).linear_map((12,)), 1024))


@pytest.mark.parametrize(
    ("inputs", "outputs", "labels"),
    [
        (16, 32, ["", ", 2 copies there", ", summed over gaps", ", in two, summed over gaps"]),
        (16, 16, ["", ", 2 copies there", ", 2 copies there, summed", ", 4 copies there", ", summed over gaps"]),
    ],
)
def test_gaps_carry_copies_or_sums(inputs: int, outputs: int, labels: list[str]) -> None:
    found = list(output_candidates(convolution(inputs, outputs, 32, 2), planes(inputs, 32, WHOLE), SLOTS))
    in_two = [candidate for candidate in found if candidate.layout.ciphertexts == 2]
    assert [candidate.reductions for candidate in in_two] == [HALVES.gap_steps] * (outputs // 32)
    assert len(found) == len({(candidate.layout, candidate.reductions) for candidate in found}) == len(labels)
    for candidate in found:
        held = candidate.layout.copies
        assert (held == held[0]).all(), candidate.label

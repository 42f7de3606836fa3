"""Diagonals of a map between two layouts: every term once, against naive loops over integers."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import (
    SEEDS,
    assert_adds_each_term_once,
    assert_result_is_true,
    diagonal_sets,
    doublings,
    problems,
    random_layout,
    random_map,
    with_zeros,
    without_bias,
)

from heinfer.errors import PlanError
from heinfer.layout.layout import FREE, ZERO, Layout
from heinfer.layout.packings import Grid, cyclic_pack, dense_pack, phase_pack, plane_pack
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Convolution, Dense
from heinfer.planner.kernel.diagonals import Diagonal, DiagonalProblem
from heinfer.planner.kernel.gains import Gains, Pattern

quick = settings(max_examples=40, deadline=None)


# Laws --------------------------------------------------------------------------------------------


@quick
@given(problems())
def test_each_term_is_added_exactly_once(problem: DiagonalProblem) -> None:
    for chosen in diagonal_sets(problem):
        assert_adds_each_term_once(chosen)


@quick
@given(problems(), SEEDS)
def test_every_slot_holds_what_the_result_layout_says(problem: DiagonalProblem, seed: int) -> None:
    for chosen in diagonal_sets(problem):
        assert_result_is_true(chosen, seed)


@quick
@given(problems(), st.lists(st.integers(1, 7), max_size=3, unique=True), st.sampled_from([0.5, 0.8, 1.0]), SEEDS)
def test_translates_of_any_babies_are_as_right(
    problem: DiagonalProblem, babies: list[int], tolerance: float, seed: int
) -> None:
    nodes = dict.fromkeys([0, *(b % problem.modulus for b in babies)])
    chosen = problem.choose(tuple(nodes), tolerance)
    assert_adds_each_term_once(chosen)
    assert_result_is_true(chosen, seed)


@quick
@given(problems())
def test_no_diagonal_is_without_terms_unless_its_ciphertext_is(problem: DiagonalProblem) -> None:
    for chosen in diagonal_sets(problem):
        idle = {diagonal.target for diagonal, reads in chosen.plaintexts() if (reads < 0).all()}
        busy = {diagonal.target for diagonal, reads in chosen.plaintexts() if (reads >= 0).any()}
        assert not idle & busy
        assert idle | busy == set(range(problem.target.ciphertexts))


@quick
@given(problems(), st.integers(0, 31))
def test_any_rotation_that_equals_a_shift_modulo_the_modulus_will_do(problem: DiagonalProblem, turns: int) -> None:
    chosen = problem.choose()
    slots = problem.source.slots
    moved = {shift: (shift + turns * problem.modulus) % slots for shift in chosen.shifts}
    for diagonal, reads in chosen.plaintexts(moved):
        for p in np.flatnonzero(reads >= 0):
            assert problem.source.index[diagonal.source, (p + moved[diagonal.shift]) % slots] == reads[p]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 2), st.integers(1, 2))
def test_weights_never_matter(seed: int, sources: int, targets: int) -> None:
    rng = np.random.default_rng(seed)
    linear = random_map(rng, 12, 10, 0.3)
    zeros = with_zeros(without_bias(linear))
    source, target = random_layout(rng, 12, sources, 16), random_layout(rng, 10, targets, 16)
    one, other = (DiagonalProblem(m, source, target) for m in (linear, zeros))
    for a, b in zip(diagonal_sets(one), diagonal_sets(other), strict=True):
        assert a.diagonals == b.diagonals
        assert a.result_layout() == b.result_layout()


@quick
@given(SEEDS)
def test_without_reductions_a_slot_that_is_not_wanted_is_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = random_layout(rng, 12, 2, 16), random_layout(rng, 10, 2, 16)
    result = DiagonalProblem(random_map(rng, 12, 10, 0.3), source, target).choose().result_layout()
    assert np.array_equal(result.index, np.where(target.index == FREE, ZERO, target.index))


# Fewest diagonals --------------------------------------------------------------------------------


def fewest_by_search(problem: DiagonalProblem) -> int:
    """The least number of diagonals, by trying them all."""
    terms: dict[Diagonal, set[int]] = {}
    for source, target, shift in np.ndindex(problem.source.ciphertexts, problem.target.ciphertexts, problem.modulus):
        diagonal = Diagonal(source, target, shift)
        _, _, cells = problem.terms(diagonal)
        terms[diagonal] = set(cells.tolist())
    wanted = set().union(*terms.values())
    sizes = range(len(terms) + 1)
    return next(n for n in sizes if any(set().union(*c) == wanted for c in combinations(terms.values(), n)))


@quick
@given(SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_few_diagonals_are_nearly_as_few_as_can_be(seed: int, inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = random_layout(rng, inputs, 1, 8), random_layout(rng, outputs, 1, 8)
    problem = DiagonalProblem(random_map(rng, inputs, outputs, 0.3), source, target)
    assert len(diagonal_sets(problem)[0]) <= fewest_by_search(problem) + 1


@quick
@given(SEEDS, st.integers(1, 6), st.integers(1, 6), st.integers(1, 2))
def test_the_bound_on_diagonals_is_never_above_the_fewest(seed: int, inputs: int, outputs: int, targets: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = random_layout(rng, inputs, 1, 8), random_layout(rng, outputs, targets, 8)
    problem = DiagonalProblem(random_map(rng, inputs, outputs, 0.5), source, target)
    assert 1 <= problem.at_least <= max(1, fewest_by_search(problem))


@quick
@given(st.sampled_from([8, 12, 16]), st.lists(st.integers(0, 7), min_size=1, max_size=6))
def test_a_pattern_counts_the_parallelograms_that_a_shift_closes(modulus: int, shifts: list[int]) -> None:
    pattern = Pattern(modulus)
    for shift in shifts:
        pattern.add(shift)
    fourths = [(a + b - c) % modulus for a, b, c in product(set(shifts), repeat=3)]
    assert pattern.closes.tolist() == [fourths.count(s) for s in range(modulus)]


@quick
@given(SEEDS, st.integers(1, 400), st.integers(1, 4), st.floats(0.1, 1))
def test_gains_are_those_of_counting_anew(seed: int, diagonals: int, babies: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    terms = rng.integers(1, 9, diagonals).astype(float)
    members = np.stack([rng.permutation(diagonals + 9) for _ in range(babies)])  # of each giant; some are nowhere
    members = np.where(members < diagonals, members, diagonals)
    gains = Gains(np.arange(diagonals), terms, members, diagonals)
    while gains.left:
        expected = np.append(terms, 0)[members].sum(axis=0)
        least, equals = gains.near_best(tolerance)
        assert least == tolerance * expected.max()
        assert equals.tolist() == np.flatnonzero(expected >= least).tolist()
        some = rng.integers(diagonals, size=rng.integers(1, 40))
        taken = np.unique(some[terms[some] > 0])
        gains.subtract(taken, np.ones(taken.size))
        terms[taken] -= 1
    assert not terms.any()


def convolution_map(channels: tuple[int, int], size: int, kernel: int, stride: int, padding: int) -> LinearMap:
    weight = np.ones((channels[1], channels[0], kernel, kernel))
    op = Convolution(weight, np.zeros(channels[1]), (stride, stride), (padding, padding))
    return op.linear_map((channels[0], size, size))


IN_BLOCKS = Grid(8, 8)
GAPS = Grid(8, 8, 2, 2)
ONE, TWO, FOUR = (plane_pack((c, 8, 8), IN_BLOCKS, 256) for c in (1, 2, 4))
HALVED = plane_pack((4, 4, 4), GAPS, 256)
PHASES = phase_pack((1, 8, 8), (2, 2), Grid(4, 4), 256)
SMALL = plane_pack((4, 4, 4), Grid(4, 4), 256)
TURNED = plane_pack((4, 4, 4), Grid(4, 4), 256, turn=1)
OVER_BLOCKS, OVER_GAPS, OVER_FLAT = doublings(64, 256), (1, 8), doublings(8, 256)


@pytest.mark.parametrize(
    ("linear", "source", "target", "reductions", "diagonals"),
    [
        pytest.param(convolution_map((1, 1), 8, 3, 1, 1), ONE, ONE, (), 9, id="a tap, a diagonal"),
        pytest.param(convolution_map((1, 4), 8, 3, 1, 1), ONE, FOUR, (), 9, id="copies serve all channels"),
        pytest.param(convolution_map((4, 4), 8, 3, 1, 1), FOUR, FOUR, (), 36, id="channels times taps"),
        pytest.param(convolution_map((4, 1), 8, 3, 1, 1), FOUR, ONE, OVER_BLOCKS, 9, id="a reduction over the blocks"),
        pytest.param(convolution_map((4, 4), 8, 1, 1, 0), FOUR, FOUR, (), 4, id="1 x 1"),
        pytest.param(convolution_map((2, 2), 8, 1, 1, 0), TWO, TWO, (), 2, id="copies make shifts cyclic"),
        pytest.param(convolution_map((4, 4), 8, 3, 2, 1), FOUR, HALVED, (), 36, id="a stride leaves gaps"),
        pytest.param(convolution_map((4, 4), 8, 3, 2, 1), FOUR, HALVED, OVER_GAPS, 16, id="partial sums in the gaps"),
        pytest.param(convolution_map((1, 4), 8, 4, 2, 1), PHASES, SMALL, (), 36, id="four phases times nine offsets"),
        pytest.param(convolution_map((4, 4), 4, 1, 1, 0), SMALL, SMALL, (), 4, id="equal copies do not help"),
        pytest.param(convolution_map((4, 4), 4, 1, 1, 0), TURNED, SMALL, (), 4, id="turned copies, full output"),
        pytest.param(
            Dense(np.ones((8, 64)), np.zeros(8)).linear_map((4, 4, 4)), SMALL, cyclic_pack((8,), 256), OVER_FLAT, 8,
            id="dense, folded cyclically",
        ),
        pytest.param(
            Dense(np.ones((8, 64)), np.zeros(8)).linear_map((64,)), dense_pack((64,), 64), dense_pack((8,), 64), (), 64,
            id="dense, not folded",
        ),
    ],
)  # fmt: skip
def test_how_many_diagonals_it_takes(
    linear: LinearMap, source: Layout, target: Layout, reductions: tuple[int, ...], diagonals: int
) -> None:
    problem = DiagonalProblem(linear, source, target, reductions)
    assert len(diagonal_sets(problem)[0]) == diagonals
    assert_adds_each_term_once(problem.choose())


# Unusual sets of diagonals -----------------------------------------------------------------------


def entries(pairs: dict[tuple[int, int], float], outputs: int, inputs: int) -> LinearMap:
    rows, cols = np.array(list(pairs), dtype=np.int64).reshape(-1, 2).T
    return LinearMap.from_entries((inputs,), (outputs,), rows, cols, np.array(list(pairs.values()), dtype=float))


@pytest.mark.parametrize("shift", range(8))
def test_a_rotation_is_a_single_diagonal(shift: int) -> None:
    linear = entries({(i, (i + shift) % 8): i + 1.0 for i in range(8)}, 8, 8)
    chosen = DiagonalProblem(linear, dense_pack((8,), 8), dense_pack((8,), 8)).choose()
    assert chosen.diagonals == (Diagonal(0, 0, shift),)
    assert [e.tolist() for _, e in chosen.plaintexts()] == [[(i + shift) % 8 for i in range(8)]]


def test_a_short_diagonal_is_one_entry() -> None:
    chosen = DiagonalProblem(entries({(2, 7): 3.0}, 8, 8), dense_pack((8,), 8), dense_pack((8,), 8)).choose()
    [(diagonal, held)] = chosen.plaintexts()
    assert diagonal == Diagonal(0, 0, 5)
    assert held.tolist() == [-1, -1, 7, -1, -1, -1, -1, -1]


def test_outputs_without_terms_still_get_a_ciphertext() -> None:
    target = Layout((2,), np.array([[0, ZERO, ZERO, ZERO], [1, ZERO, ZERO, ZERO]]))
    chosen = DiagonalProblem(entries({(0, 3): 2.0}, 2, 4), dense_pack((4,), 4), target).choose()
    assert chosen.diagonals == (Diagonal(0, 0, 3), Diagonal(0, 1, 3))
    assert [(e >= 0).sum() for _, e in chosen.plaintexts()] == [1, 0]


def test_a_map_without_any_term_is_a_diagonal_of_zeros() -> None:
    chosen = DiagonalProblem(entries({}, 2, 4), dense_pack((4,), 4), dense_pack((2,), 4)).choose()
    assert chosen.diagonals == (Diagonal(0, 0, 0),)
    assert_result_is_true(chosen, 0)


def test_an_element_is_read_from_the_copy_that_suits() -> None:
    source = Layout((2,), np.array([[0, 1, 0, 1]]))
    swap = entries({(0, 1): 1.0, (1, 0): 1.0}, 2, 2)
    chosen = DiagonalProblem(swap, source, Layout((2,), np.array([[0, 1, ZERO, ZERO]]))).choose()
    assert chosen.diagonals == (Diagonal(0, 0, 1),)


# Reductions -------------------------------------------------------------------------------------------


def test_a_cyclic_reduction_leaves_a_complete_element_in_every_slot() -> None:
    linear = Dense(np.ones((2, 8)), np.zeros(2)).linear_map((8,))
    problem = DiagonalProblem(linear, dense_pack((8,), 8), cyclic_pack((2,), 8), (2, 4))
    assert problem.modulus == 2
    chosen = problem.choose()
    assert len(chosen) == 2
    assert chosen.result_layout().index.tolist() == [[0, 1, 0, 1, 0, 1, 0, 1]]


def test_a_reduction_over_gaps_leaves_partial_sums_that_are_free() -> None:
    linear = entries({(0, 0): 1.0, (0, 1): 1.0}, 1, 2)
    target = Layout((1,), np.array([[ZERO, FREE, 0, FREE, ZERO, FREE, FREE, FREE]]))
    problem = DiagonalProblem(
        linear, Layout((2,), np.array([[FREE, FREE, 0, 1, FREE, FREE, FREE, FREE]])), target, (1,)
    )
    chosen = problem.choose()
    assert chosen.diagonals == (Diagonal(0, 0, 0),)
    assert chosen.result_layout().index.tolist() == [[ZERO, FREE, 0, FREE, ZERO, ZERO, ZERO, ZERO]]


def test_a_free_slot_that_ends_complete_is_named() -> None:
    linear = entries({(0, 0): 1.0, (0, 1): 1.0}, 1, 2)
    target = Layout((1,), np.array([[0, FREE, FREE, FREE]]))
    chosen = DiagonalProblem(linear, Layout((2,), np.array([[0, 1, FREE, FREE]])), target, (1, 2)).choose()
    assert chosen.result_layout().index.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("index", "reductions", "complaint"),
    [
        ([0, 1, 2, 3], (1,), "no row of these reductions may hold partial sums of output 0"),
        ([0, ZERO, ZERO, 1], (1,), "no row of these reductions may hold partial sums of output 0"),
        ([0, 0, FREE, 1], (1,), "share only some of their rows"),
        ([0, 1, 0, 1], (2, 2), "share only some of their rows"),
    ],
)
def test_reductions_that_a_target_does_not_allow_are_refused(
    index: list[int], reductions: tuple[int, ...], complaint: str
) -> None:
    outputs = max(index) + 1
    linear = Dense(np.ones((outputs, 4)), np.zeros(outputs)).linear_map((4,))
    problem = DiagonalProblem(linear, dense_pack((4,), 4), Layout((outputs,), np.array([index])), reductions)
    with pytest.raises(PlanError, match=complaint):
        problem.choose()


def test_shifts_count_modulo_the_period_of_the_source() -> None:
    source, target = cyclic_pack((4,), 16), dense_pack((4,), 16)
    problem = DiagonalProblem(Dense(np.ones((4, 4)), np.zeros(4)).linear_map((4,)), source, target)
    assert problem.modulus == 4
    assert problem.choose().shifts == (0, 1, 2, 3)

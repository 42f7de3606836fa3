"""The planner's laws on many more random cases than a change should wait for."""

import numpy as np
import pytest
from exhaustive import fewest_rotations
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import (
    SEEDS,
    all_plans,
    assert_adds_each_term_once,
    assert_result_is_true,
    diagonal_sets,
    evaluated,
    integer_input,
    naive_map,
    packed_with_garbage,
    problems,
    untrue_slots,
)
from random_networks import assert_runs, networks, planned, slots_for

from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.planner.kernel.bsgs import covers
from heinfer.planner.kernel.diagonals import DiagonalProblem

pytestmark = pytest.mark.slow


@settings(max_examples=150, deadline=None)
@given(networks(most=7, side=12), st.sampled_from([1, 2, 4, 8]))
def test_a_planned_network_computes_the_network(network: Network, planes: int) -> None:
    folded = fold(network)
    assert_runs(network, planned(folded, planes * slots_for(folded)))


@settings(max_examples=150, deadline=None)
@given(problems(), SEEDS)
def test_every_plan_of_a_layer_computes_its_map(problem: DiagonalProblem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = integer_input(problem.map, rng)
    slots = packed_with_garbage(problem.source, x, rng)
    for chosen in diagonal_sets(problem):
        assert_adds_each_term_once(chosen)
        assert_result_is_true(chosen, seed)
        for plan in all_plans(chosen):
            assert not untrue_slots(plan.target, naive_map(problem.map, x), evaluated(plan, slots))


def test_small_sets_are_covered_within_one_rotation_of_the_least_and_nearly_always_by_the_least() -> None:
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(3000):
        modulus = int(rng.choice([8, 12, 16, 20]))
        shifts = frozenset(rng.choice(modulus, size=rng.integers(1, 8), replace=False).tolist())
        gaps.append(min(c.rotations for c in covers(shifts, modulus)) - fewest_rotations(shifts, modulus))
    assert set(gaps) <= {0, 1}
    assert gaps.count(1) < 0.02 * len(gaps)

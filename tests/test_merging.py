"""Which adjacent maps the planner multiplies out, and for how many levels it plans."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from random_networks import assert_runs, chain, convolution, dense, networks, polynomial
from rings import tiny_parameters

from heinfer.errors import PlanError
from heinfer.network.folding import fold
from heinfer.network.ir import Network, Node
from heinfer.network.operators import AveragePool, Square
from heinfer.planner.merging import Merging, divisions, map_of, merged, product_entries
from heinfer.planner.search import plan_network

RNG = np.random.default_rng(0)
POOL = AveragePool((2, 2), (2, 2))
POOLED = chain((1, 8, 8), convolution(RNG, 1, 2, 3, 1, 1), polynomial(RNG, 2), POOL, convolution(RNG, 2, 2, 3, 1, 1))


def names(network: Network) -> list[list[str]]:
    return [[node.name for node in division] for division in divisions(list(fold(network).nodes))]


def test_every_division_of_a_run_is_tried_most_levels_first() -> None:
    network = chain((1, 8, 8), POOL, convolution(RNG, 1, 2, 1), convolution(RNG, 2, 1, 1))
    assert names(network) == [
        ["averagepool0", "convolution1", "convolution2"],
        ["averagepool0", "convolution1+convolution2"],
        ["averagepool0+convolution1", "convolution2"],
        ["averagepool0+convolution1+convolution2"],
    ]


def test_a_product_that_grows_too_much_is_not_tried() -> None:
    network = chain((64,), dense(RNG, 64, 1), dense(RNG, 1, 64))
    first, second = fold(network).nodes
    assert product_entries(map_of(first), map_of(second)) == 64 * 64
    assert names(network) == [["dense0", "dense1"]]


@settings(max_examples=20, deadline=None)
@given(networks(most=4, side=8))
def test_a_merged_pair_is_the_pair(network: Network) -> None:
    nodes = [node for node in fold(network).nodes if not isinstance(node.operator, Square)]
    for first, second in pairwise(nodes):
        if map_of(first).out_shape == map_of(second).in_shape:
            both = merged(first, second)
            x = np.random.default_rng(0).normal(size=(2, *map_of(first).in_shape))
            np.testing.assert_allclose(both.operator(x), second.operator(first.operator(x)), atol=1e-9)
            assert map_of(both).values.size <= product_entries(map_of(first), map_of(second))
            assert both.name == f"{first.name}+{second.name}"


def test_a_network_has_as_many_levels_as_maps_and_squares_at_most() -> None:
    merging = Merging(fold(POOLED))
    assert (merging.levels.start, merging.levels[-1]) == (3, 4)
    assert merging.levels_from(2) == range(1, 3)
    assert merging.levels_from(3) == range(1)


def test_maps_are_merged_when_the_ring_has_too_few_levels_for_them_apart() -> None:
    plan = plan_network(fold(POOLED), tiny_parameters(128, (28, 26, 26, 26)))
    assert [step.name for step in plan.steps] == ["convolution0", "polynomial1", "averagepool2+convolution3"]
    assert_runs(POOLED, plan)


def test_a_square_has_no_matrix() -> None:
    with pytest.raises(PlanError, match=r"^square: fold the network first; Square has no kernel"):
        map_of(Node("square", Square()))

"""Which adjacent maps the planner multiplies out, and for how many levels it plans."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from random_networks import (
    assert_runs,
    branching,
    branching_networks,
    chain,
    convolution,
    dense,
    inputs_for,
    networks,
    polynomial,
)
from rings import tiny_parameters

from heinfer.errors import PlanError
from heinfer.network.folding import fold
from heinfer.network.ir import INPUT, Network, Node
from heinfer.network.joints import Add, Concat
from heinfer.network.operators import AveragePool, Flatten, Square
from heinfer.planner.search.merging import Merging, map_of, merged
from heinfer.planner.search.search import plan_network

RNG = np.random.default_rng(0)
POOL = AveragePool((2, 2), (2, 2))
POOLED = chain((1, 8, 8), convolution(RNG, 1, 2, 3, 1, 1), polynomial(RNG, 2), POOL, convolution(RNG, 2, 2, 3, 1, 1))


def names(network: Network, stage: int = 0) -> list[list[str]]:
    """Of the parts of every partition of a run."""
    partitions = Merging(fold(network)).stages[stage].partitions
    return [[part.node.name for part in partition.parts] for partition in partitions]


def test_every_division_of_a_run_is_tried_most_levels_first() -> None:
    network = chain((2, 8, 8), POOL, convolution(RNG, 2, 2, 1), convolution(RNG, 2, 1, 1))
    assert names(network) == [
        ["averagepool0", "convolution1", "convolution2"],
        ["averagepool0", "convolution1+convolution2"],
        ["averagepool0+convolution1", "convolution2"],
        ["averagepool0+convolution1+convolution2"],
    ]


def test_a_product_that_grows_too_much_is_not_tried() -> None:
    network = chain((64,), dense(RNG, 64, 1), dense(RNG, 1, 64))
    first, second = map(map_of, fold(network).nodes)
    assert first.size_then(second) == 64 * 64
    assert names(network) == [["dense0", "dense1"]]


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(
            chain((8, 16, 16), convolution(RNG, 8, 32, 5, 2, 2), convolution(RNG, 32, 8, 3, 1, 1)), id="convolutions"
        ),
        pytest.param(
            chain((2, 8, 8), convolution(RNG, 2, 32, 3, 1, 1), POOL, Flatten(), dense(RNG, 512, 100)), id="pooled"
        ),
        pytest.param(chain((64,), dense(RNG, 64, 128), dense(RNG, 128, 64)), id="dense"),
    ],
)
def test_a_product_of_few_entries_is_tried_however_many_ways_lead_to_them(network: Network) -> None:
    nodes = fold(network).nodes
    *first, last = map(map_of, nodes)
    before = first[0].then(first[1]) if len(first) > 1 else first[0]
    ways = int((before.reads * last.readers).sum())
    assert ways > 16 * (before.size + last.size)
    assert ways > 5 * before.size_then(last)
    assert ["+".join(node.name for node in nodes)] in names(network)


@settings(max_examples=20, deadline=None)
@given(networks(most=4, side=8))
def test_a_merged_pair_is_the_pair(network: Network) -> None:
    nodes = [node for node in fold(network).nodes if not isinstance(node.operator, Square)]
    for first, second in pairwise(nodes):
        if map_of(first).out_shape == map_of(second).in_shape:
            both = merged(first, second)
            x = np.random.default_rng(0).normal(size=(2, *map_of(first).in_shape))
            np.testing.assert_allclose(both.operator(x), second.operator(first.operator(x)), atol=1e-9)
            assert map_of(both).size == map_of(first).size_then(map_of(second))
            assert both.name == f"{first.name}+{second.name}"


def test_a_network_has_as_many_levels_as_maps_and_squares_at_most() -> None:
    merging = Merging(fold(POOLED))
    assert (merging.levels.start, merging.levels[-1]) == (3, 4)
    assert merging.levels_from(1) == range(1, 3)  # the tensor that node 1 makes, a square
    assert merging.levels_from(3) == range(1)
    assert not merging.may_wait


def test_maps_are_merged_when_the_ring_has_too_few_levels_for_them_apart() -> None:
    plan = plan_network(fold(POOLED), tiny_parameters(128, (28, 26, 26, 26)))
    assert [step.name for step in plan.steps] == ["convolution0", "polynomial1", "averagepool2+convolution3"]
    assert_runs(POOLED, plan)


def test_a_square_has_no_matrix() -> None:
    with pytest.raises(PlanError, match=r"^square: fold the network first; Square has no kernel"):
        map_of(Node("square", Square()))


# Where branches meet -------------------------------------------------------------------------------

SHAPE = (2, 4, 4)
CONV, ACT = convolution(RNG, 2, 2, 3, 1, 1), polynomial(RNG, 2)
ACT_1 = polynomial(RNG, 1)
THIN, WIDE = convolution(RNG, 2, 1, 3, 1, 1), convolution(RNG, 1, 2, 1)


def test_the_run_into_a_sum_is_a_tree_of_maps() -> None:
    """An FFConv in a residual block: halves of rank one, of which the second only copies, and a pool after the sum."""
    nodes = [(CONV, INPUT), (ACT, 0), (CONV, 1), (ACT, 2), (THIN, 3), (WIDE, 4), (Add(), 5, 1), (POOL, 6)]
    network = branching(SHAPE, *nodes)
    assert names(network, stage=4) == [
        ["convolution4", "add6", "averagepool7"],
        ["convolution4", "add6+averagepool7"],
        ["convolution4+add6", "averagepool7"],
        ["convolution4+add6+averagepool7"],
    ]
    assert Merging(fold(network)).levels == range(5, 8)


@settings(max_examples=15, deadline=None)
@given(branching_networks(blocks=1, side=5))
def test_every_division_of_every_run_is_the_run(network: Network) -> None:
    folded = fold(network)
    values = {INPUT: inputs_for(network)}
    for stage in Merging(folded).stages:
        for partition in stage.partitions:
            made = dict(values)
            for part in partition.parts:
                assert all(tensor in made for tensor in part.reads)
                x = [made[tensor] for tensor in part.reads]
                made[part.makes] = sum(m(v) for m, v in zip(part.maps, x, strict=True)) if part.is_map else x[0] ** 2
                if len(x) > 1:
                    flat = np.concatenate([v.reshape(len(v), -1) for v in x], axis=1)
                    np.testing.assert_allclose(part.map(flat), made[part.makes], atol=1e-9)
            values.setdefault(stage.makes, made[stage.makes])
            np.testing.assert_allclose(made[stage.makes], values[stage.makes], atol=1e-9)
            assert max(partition.distance.values()) <= len(partition.parts)
    np.testing.assert_allclose(values[stage.makes], network(values[INPUT]), atol=1e-9)


def test_a_tensor_beside_a_longer_way_may_wait() -> None:
    nodes = [(CONV, INPUT), (ACT, 0), (CONV, 1), (ACT, 2), (CONV, 3), (ACT, 4), (THIN, 1), (ACT_1, 6)]
    network = fold(branching(SHAPE, *nodes, (Concat(), 5, 7), (convolution(RNG, 3, 1, 1), 8)))
    merging = Merging(network)
    assert {network.nodes[i].name for i in merging.may_wait} == {"convolution6", "polynomial7"}

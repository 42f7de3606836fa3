"""Published methods as policies: that their plans compute the network, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packings import conv_pack, packed_windows
from planning import assert_adds_each_term_once, assert_result_is_true
from published import act, conv, factorized, fc, under, with_room
from random_networks import (
    assert_runs,
    chain,
    convolution,
    dense,
    networks,
    planned,
    polynomial,
    slots_for,
)
from rings import tiny_parameters

from heinfer.baselines.names import Policy
from heinfer.baselines.planning import count_policy, plan_policy
from heinfer.baselines.slot_maps import Raster, Windows, planes, raster_for, vector
from heinfer.circuit.counts import count_layers
from heinfer.circuit.ir import Circuit
from heinfer.errors import PlanError
from heinfer.layout.layout import ZERO
from heinfer.layout.packings import Grid, cyclic_pack, dense_pack, plane_pack
from heinfer.lowering.lower import lower
from heinfer.network.folding import fold
from heinfer.network.ir import Network, Node
from heinfer.network.joints import Add
from heinfer.network.operators import AveragePool, Flatten, Operator, Square
from heinfer.planner.plan import LinearStep
from heinfer.planner.requirements import Limits, Requirements

PUBLISHED = st.sampled_from([Policy.LOLA, Policy.FFCONV])


# Every network -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(networks(most=4, side=8), st.sampled_from(Policy), st.sampled_from([1, 4, 16]), st.sampled_from([1, 1, 2, 8]))
def test_a_plan_computes_the_network_and_counts_what_its_circuit_does(
    network: Network, policy: Policy, planes: int, batch: int
) -> None:
    plan = with_room(policy, network, planes * slots_for(fold(network)), batch)
    assert_runs(network, plan)
    for step, counts in zip(plan.steps, count_layers(lower(plan)), strict=True):
        if isinstance(step, LinearStep):
            assert (counts.rotations, counts.hma) == (step.plan.counts.rotations, step.plan.counts.hma)


@settings(max_examples=10, deadline=None)
@given(networks(most=4, side=5), PUBLISHED)
def test_every_step_adds_each_term_once_where_it_says(network: Network, policy: Policy) -> None:
    plan = with_room(policy, network, slots_for(fold(network)))
    for step in plan.steps:
        if isinstance(step, LinearStep):
            assert_adds_each_term_once(step.plan.diagonals)
            assert_result_is_true(step.plan.diagonals, 0)


@pytest.mark.parametrize("policy", [Policy.LOLA, Policy.FFCONV])
@pytest.mark.parametrize(
    "operators",
    [
        pytest.param([conv(1, 2, 3, 1, 2)], id="an output larger than its input"),
        pytest.param([Square()], id="nothing but a square"),
        pytest.param([Flatten()], id="nothing but a reshape"),
        pytest.param([conv(1, 2, 1, 3), Square()], id="pixels that no tap reads"),
        pytest.param([conv(1, 1, 4, 5), conv(1, 1, 1, 2, 1)], id="nothing but bias"),
        pytest.param([fc(64, 40), Square(), fc(40, 70), Square(), fc(70, 9), Square(), fc(9, 3)], id="dense"),
        pytest.param([conv(1, 5, 3, 1, 1), Square(), fc(320, 3), Square(), fc(3, 300)], id="more than a ciphertext"),
        pytest.param([conv(1, 3, 3), act(3), conv(3, 2, 3, 2, 2), act(2), conv(2, 4, 3, 3, 1)], id="gaps of 2 and 6"),
        pytest.param([conv(1, 2, 1), act(2), conv(2, 9, 3, 2), conv(9, 3, 1), act(3), conv(3, 2, 3)], id="two pairs"),
        pytest.param([conv(1, 4, 3), AveragePool((2, 2), (2, 2)), act(4), AveragePool((3, 3), (1, 1))], id="pools"),
    ],
)
def test_unusual_networks_are_planned(policy: Policy, operators: list[Operator]) -> None:
    network = chain((1, 8, 8), *operators)
    assert_runs(network, under(policy, network, 256))


@pytest.mark.parametrize("policy", Policy)
def test_every_policy_takes_batches_and_parameters(policy: Policy) -> None:
    network = factorized(3, 2, 2, 4)
    parameters = tiny_parameters(4096, (28,) + (26,) * 7)
    plan = plan_policy(fold(network), policy, parameters, Requirements(batch=2))
    assert (plan.parameters, plan.input.shape) == (parameters, (2, 1, 8, 8))
    assert_runs(network, plan)


def test_weights_never_matter() -> None:
    def circuit(policy: Policy, seed: int) -> Circuit:
        rng = np.random.default_rng(seed)
        first, second = convolution(rng, 1, 3, 3, 1, 1), convolution(rng, 3, 2, 3, 2, 1)
        last = convolution(rng, 2, 4, 1)
        operators = [first, polynomial(rng, 3), second, last, polynomial(rng, 4), Flatten(), dense(rng, 36, 3)]
        return lower(under(policy, chain((1, 6, 6), *operators), 256))

    for policy in (Policy.LOLA, Policy.FFCONV):
        one, other = circuit(policy, 0), circuit(policy, 1)
        assert (one.ops, one.layers) == (other.ops, other.layers)


# Layouts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "stride", "padding"), [(28, 2, 1), (9, 1, 2), (8, 3, 0)])
def test_windows_are_those_of_conv_pack(size: int, stride: int, padding: int) -> None:
    linear = conv(2, 3, 5, stride, padding).linear_map((2, size, size))
    outputs = linear.out_shape[1] * linear.out_shape[2]
    windows = Windows(linear, 256, np.arange(outputs))
    expected = packed_windows((2, size, size), (5, 5), (stride, stride), (padding, padding), 256)
    assert windows.layout() == expected


def test_named_layouts_are_values_of_the_same_type() -> None:
    shape = (3, 4, 4)
    assert vector(shape, 256, copied=True).places.layout() == cyclic_pack(shape, 256)
    assert vector(shape, 256, copied=False).places.layout() == dense_pack(shape, 256)
    assert planes(shape, Raster(4, 4), 64, dense=False).places.layout() == conv_pack(shape, 64)
    packed = planes(shape, Raster(4, 4), 64, dense=True).places.layout()
    expected = plane_pack(shape, Grid(4, 4), 64)
    assert np.array_equal(packed.index, np.maximum(expected.index, ZERO))  # what is FREE there is zero here


# The search as a policy ----------------------------------------------------------------------------


def test_heinfer_is_the_search_and_its_unfactorized_twin_the_search_of_the_multiplied_out() -> None:
    network = fold(factorized(4, 2, 1, 3))
    parameters = tiny_parameters(1024, (28,) + (26,) * 6)
    one, other = plan_policy(network, Policy.HEINFER, parameters), planned(network, 512)
    assert lower(one).ops == lower(other).ops
    twin = plan_policy(network, Policy.UNFACTORIZED, parameters)
    assert [step.name for step in twin.steps] == [
        "convolution0",
        "polynomial1",
        "convolution2+convolution3",
        "polynomial4",
        "dense6",
    ]


# What cannot be planned ----------------------------------------------------------------------------


def test_refusals_name_the_policy_and_the_way_out() -> None:
    network = fold(chain((1, 8, 8), conv(1, 2, 3), act(2), conv(2, 2, 3)))
    with pytest.raises(PlanError, match=r"^policy lola takes 3 levels, masks included, and the parameters give 2: use"):
        plan_policy(network, Policy.LOLA, tiny_parameters(128, (28, 26, 26)))
    with pytest.raises(
        PlanError,
        match=r"^policy ffconv: convolution0: a plane of outputs reaches over 46 slots and there are 32; use a",
    ):
        plan_policy(network, Policy.FFCONV, tiny_parameters(64, (28, 26, 26, 26)))
    with pytest.raises(
        PlanError, match=r"^policy lola has one plan, and it does not keep to the limit upload_bytes = 9"
    ):
        plan_policy(network, Policy.LOLA, requirements=Requirements(limits=Limits(upload_bytes=9)))
    with pytest.raises(PlanError, match="heinfer is no published method: count the circuit of its plan"):
        count_policy(network, Policy.HEINFER)
    with pytest.raises(PlanError, match="flatten0: fold the network first"):
        plan_policy(chain((4,), Flatten()), Policy.LOLA)


def test_a_tensor_that_overflows_a_ring_gets_the_next() -> None:
    network = fold(chain((1, 70, 70), conv(1, 1, 1)))
    assert plan_policy(network, Policy.LOLA).parameters.ring_degree == 16384  # 8192 has 4096 slots


def test_only_planes_that_convolutions_read_are_padded() -> None:
    shape = (1, 70, 70)
    assert raster_for(shape, []) == Raster(70, 70)
    assert raster_for(shape, [conv(1, 1, 3).linear_map(shape)]) == Raster(128, 128)


@pytest.mark.parametrize("policy", [Policy.LOLA, Policy.FFCONV, Policy.UNFACTORIZED])
def test_branches_are_left_to_the_search(policy: Policy) -> None:
    nodes = Node("conv", conv(1, 1, 3, 1, 1)), Node("act", act(1)), Node("next", conv(1, 1, 3, 1, 1))
    network = Network((1, 4, 4), (*nodes, Node("square", Square()), Node("sum", Add(), (1, 3))))
    with pytest.raises(PlanError, match=rf"policy {policy} takes chains, and \w+ reads others .* use policy heinfer"):
        plan_policy(fold(network), policy)

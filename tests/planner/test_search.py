"""The search over layouts: its plans compute the network, keep to limits, and are no dearer than others."""

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import (
    assert_runs,
    batch_norm,
    chain,
    circuit_of,
    convolution,
    dense,
    networks,
    planned,
    polynomial,
    slots_for,
)
from rings import tiny_parameters

from heinfer.circuit.counts import count_circuit, count_layers
from heinfer.ckks.security import MAX_LOG_QP_128
from heinfer.costs.tables import cost_table
from heinfer.errors import PlanError
from heinfer.network.folding import fold
from heinfer.network.ir import Network, Node
from heinfer.network.operators import AveragePool, ChannelAffine, Convolution, Dense, Flatten, Operator, Square
from heinfer.planner.parameters import choose_parameters
from heinfer.planner.plan import LinearStep, Plan
from heinfer.planner.requirements import Limits, Requirements
from heinfer.planner.search.candidates import strides
from heinfer.planner.search.search import plan_network

# Every network -------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(networks(most=4, side=8), st.sampled_from([1, 2, 4]))
def test_a_planned_network_computes_the_network(network: Network, planes: int) -> None:
    folded = fold(network)
    plan = planned(folded, planes * slots_for(folded))
    circuit = assert_runs(network, plan)
    assert "+".join(layer.name for layer in circuit.layers).split("+") == [node.name for node in folded.nodes]
    for step, counts in zip(plan.steps, count_layers(circuit), strict=True):
        if isinstance(step, LinearStep):
            assert (counts.rotations, counts.hma) == (step.plan.counts.rotations, step.plan.counts.hma)


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int = 0) -> Convolution:
    return convolution(np.random.default_rng(0), c_in, c_out, kernel, stride, padding)


def act(channels: int) -> Operator:
    return polynomial(np.random.default_rng(1), channels)


def fc(inputs: int, outputs: int) -> Operator:
    return dense(np.random.default_rng(2), inputs, outputs)


@pytest.mark.parametrize(
    "operators",
    [
        pytest.param([conv(1, 2, 3, 1, 2)], id="an output larger than its input"),
        pytest.param([Square()], id="nothing but a square"),
        pytest.param([AveragePool((3, 3), (2, 2))], id="nothing but a pool"),
        pytest.param([Flatten()], id="nothing but a reshape"),
        pytest.param([fc(64, 3), Square(), fc(3, 70)], id="dense"),
        pytest.param([conv(1, 4, 3, 3), Square()], id="a stride of three"),
        pytest.param([conv(1, 40, 3, 2, 1), Square()], id="many ciphertexts"),
        pytest.param([conv(1, 1, 1, 1, 2)], id="some outputs are nothing but bias"),
        pytest.param([conv(1, 1, 4, 5), conv(1, 1, 1, 2, 1)], id="all outputs are nothing but bias"),
    ],
)
def test_unusual_networks_are_planned(operators: list[Operator]) -> None:
    network = chain((1, 8, 8), *operators)
    assert_runs(network, planned(fold(network), 256))


def test_a_last_layer_is_never_left_with_partial_sums_beside_the_scores() -> None:
    """Where reductions over gaps are the cheapest plans, and more of them than the search keeps."""
    network = chain((1, 4, 4), conv(1, 4, 3, 1, 1), act(4), conv(4, 1, 3))
    assert_runs(network, planned(fold(network), 512))


# Weights never matter ------------------------------------------------------------------------------


def with_weights(rng: np.random.Generator, factor: float) -> Network:
    """A network whose weights are random times a factor, and whose biases are not zero."""
    first, second = convolution(rng, 1, 4, 3, 1, 1), convolution(rng, 4, 8, 3, 2, 1)
    last = dense(rng, 128, 5)
    return chain(
        (1, 8, 8),
        Convolution(factor * first.weight, first.bias, first.stride, first.padding),
        batch_norm(rng, 4),
        polynomial(rng, 4),
        Convolution(factor * second.weight, second.bias, second.stride, second.padding),
        polynomial(rng, 8),
        Flatten(),
        Dense(factor * last.weight, last.bias),
    )


def test_plans_of_networks_of_equal_structure_are_equal() -> None:
    plans = [planned(fold(with_weights(np.random.default_rng(s), f)), 256) for s, f in ((0, 1.0), (1, 1.0), (2, 0.0))]
    for one, other in pairwise(plans):
        assert one.input == other.input
        assert one.output == other.output
        circuits = circuit_of(one), circuit_of(other)
        assert circuits[0].ops == circuits[1].ops
        assert circuits[0].outputs == circuits[1].outputs
        assert circuits[0].layers == circuits[1].layers
        assert circuits[0].steps() == circuits[1].steps()


# Strides -------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(kernel=st.integers(1, 5), stride=st.integers(1, 4), dilation=st.integers(1, 2), data=st.data())
def test_the_stride_of_a_convolution_is_read_off_its_matrix(
    kernel: int, stride: int, dilation: int, data: st.DataObject
) -> None:
    outputs = data.draw(st.integers(max(2, stride), 6))
    reach = dilation * (kernel - 1) + 1
    padding = data.draw(st.integers(0, (reach - 1) // 2))
    size = (outputs - 1) * stride + reach - 2 * padding + data.draw(st.integers(0, stride - 1))
    op = Convolution(np.ones((1, 1, kernel, 1)), np.zeros(1), (stride, 1), (padding, 0), (dilation, 1))
    linear = op.linear_map((1, size, 1))
    found, _ = strides(linear)
    entries = linear.entries
    assert len(set(entries.cols - found * entries.rows)) <= kernel  # no more offsets than the kernel has taps
    assert found == stride or padding


def test_a_window_over_everything_strides_over_everything() -> None:
    assert strides(AveragePool((8, 4), (1, 1)).linear_map((2, 8, 4))) == (8, 4)


# Counts --------------------------------------------------------------------------------------------


def counted(shape: tuple[int, ...], *operators: Operator) -> tuple[int, int, int]:
    """Rotations, key switches and HMAs of a plan at 4096 slots."""
    counts = count_circuit(circuit_of(planned(fold(chain(shape, *operators)), 4096)))
    return counts.rotations, counts.key_switches, counts.hma


POOL = AveragePool((2, 2), (2, 2))


@pytest.mark.parametrize(
    ("shape", "operators", "counts"),
    [
        pytest.param((1, 8, 8), [conv(1, 4, 3, 1, 1)], (4, 4, 9), id="one convolution"),
        pytest.param((1, 16, 16), [conv(1, 4, 5, 2, 2)], (6, 6, 4), id="one strided convolution"),
        pytest.param((1, 8, 8), [conv(1, 4, 5), act(4), conv(4, 1, 3)], (20, 21, 13), id="without padding"),
        pytest.param((1, 16, 16), [conv(1, 16, 5, 2, 2), conv(16, 8, 3, 1, 1)], (8, 8, 16), id="narrow between"),
        pytest.param((64,), [fc(64, 10)], (14, 14, 16), id="one dense layer"),
        pytest.param((128,), [fc(128, 100), fc(100, 64)], (26, 26, 128), id="two dense layers"),
        pytest.param((2, 8, 8), [conv(2, 8, 3, 1, 1), act(8), conv(8, 2, 1)], (11, 12, 16), id="1 x 1 after 3 x 3"),
        pytest.param((1, 8, 8), [conv(1, 4, 3, 1, 1), act(4), Flatten(), fc(256, 10)], (18, 19, 25), id="then dense"),
        pytest.param((1, 8, 8), [conv(1, 4, 3, 1, 1), act(4), POOL, Flatten(), fc(64, 10)], (18, 19, 25), id="pool"),
        pytest.param(
            (1, 12, 12),
            [conv(1, 4, 3, 2, 1), act(4), conv(4, 2, 3, 1, 1), conv(2, 8, 1), act(8), Flatten(), fc(288, 10)],
            (30, 32, 56),
            id="factorized",
        ),
    ],
)
def test_how_many_operations_a_small_network_takes(
    shape: tuple[int, ...], operators: list[Operator], counts: tuple[int, int, int]
) -> None:
    assert counted(shape, *operators) == counts


def test_a_wide_tensor_before_a_pool_is_never_made() -> None:
    """The convolution to it, the pool and the dense layer are one map of fewer entries than the convolution has."""
    network = chain(
        (3, 32, 32),
        conv(3, 4, 3, 1, 1),
        act(4),
        conv(4, 32, 5, 1, 2),
        AveragePool((8, 8), (8, 8)),
        Flatten(),
        fc(512, 10),
    )
    counts = count_circuit(assert_runs(network, plan_network(fold(network))))
    assert (counts.rotations, counts.key_switches, counts.hma) == (24, 25, 52)


@cache
def mnist_ffconv(**choices: Any) -> tuple[Network, Plan]:
    """The reference network with random weights, at 4096 slots."""
    network = chain(
        (1, 28, 28), conv(1, 8, 5, 2, 2), act(8), conv(8, 4, 5, 2, 2), conv(4, 32, 1), act(32), Flatten(), fc(1568, 10)
    )
    return network, plan_network(fold(network), requirements=Requirements(**choices))


def reference_counts(**choices: Any) -> tuple[int, int, int, int]:
    """Rotations, key switches and HMAs of a plan of the reference network, and the ciphertexts it is sent in."""
    network, plan = mnist_ffconv(**choices)
    counts = count_circuit(assert_runs(network, plan))
    assert (plan.parameters.ring_degree, plan.parameters.top_level) == (8192, 6)
    return counts.rotations, counts.key_switches, counts.hma, plan.input.ciphertexts


def test_the_reference_network_takes_40_key_switches_at_six_levels() -> None:
    assert reference_counts() == (38, 40, 76, 2)


def test_the_reference_network_takes_41_key_switches_when_it_is_sent_in_one_ciphertext() -> None:
    assert reference_counts(limits=Limits(upload_bytes=300_000)) == (39, 41, 78, 1)


# What cannot be planned ----------------------------------------------------------------------------


def test_too_few_levels_are_refused_by_the_layer_that_finds_none() -> None:
    network = fold(chain((1, 8, 8), conv(1, 2, 3), act(2), conv(2, 2, 3)))
    with pytest.raises(PlanError, match=r"^convolution2 is layer 3 of 3 .* the parameters give 2: use a larger ring"):
        plan_network(network, tiny_parameters(128, (28, 26, 26)))


def test_too_few_slots_are_refused_by_the_layer_that_does_not_fit() -> None:
    network = fold(chain((1, 8, 8), conv(1, 2, 3, padding=1), act(2), conv(2, 2, 3, padding=9)))
    with pytest.raises(PlanError, match=r"^convolution2: no layout of \(2, 24, 24\) fits 16 slots; use a larger ring"):
        planned(network, 16)


def test_a_network_that_is_not_folded_is_refused() -> None:
    with pytest.raises(PlanError, match=r"^channelaffine0: fold the network first, it must start with an affine map"):
        planned(chain((1, 8, 8), ChannelAffine(np.ones(1), np.ones(1))), 64)
    identity, pool = fold(chain((1, 8, 8), Flatten())).nodes[0], Node("pool", POOL)
    with pytest.raises(PlanError, match=r"^pool: fold the network first; AveragePool has no kernel"):
        planned(Network((1, 8, 8), (identity, pool)), 64)


# Parameters and costs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "degree"),
    [(1, 4096), (2, 8192), (6, 8192), (7, 16384), (14, 16384), (15, 32768), (31, 32768), (32, 65536)],
)
def test_parameters_are_the_smallest_ring_with_so_many_levels(levels: int, degree: int) -> None:
    parameters = choose_parameters(levels)
    assert (parameters.ring_degree, parameters.top_level) == (degree, levels)
    assert parameters.log_qp <= MAX_LOG_QP_128[degree]


@pytest.mark.parametrize("levels", [1, 2, 3, 6, 7, 10, 14, 15])
def test_primes_are_as_wide_as_the_ring_allows_the_lowest_first(levels: int) -> None:
    parameters = choose_parameters(levels)
    bits = [prime.bit_length() for prime in parameters.data_primes]
    assert sum(bits) + 30 == min(MAX_LOG_QP_128[parameters.ring_degree], 30 * (levels + 2))
    assert 26 <= min(bits) <= max(bits) <= 30
    assert bits == sorted(bits, reverse=True)
    assert max(bits[1:]) - min(bits) <= 1


def test_more_levels_than_any_ring_gives_are_refused() -> None:
    most = next(n for n in range(1, 99) if not _has_parameters(n)) - 1
    with pytest.raises(PlanError, match=f"needs {most + 1} levels .* gives {most} at 128-bit security: use fewer"):
        choose_parameters(most + 1)


def _has_parameters(levels: int) -> bool:
    try:
        choose_parameters(levels)
    except PlanError:
        return False
    return True


@pytest.mark.parametrize("degree", [4096, 8192, 16384, 32768])
def test_costs_grow_with_level_and_ring(degree: int) -> None:
    cost, larger = cost_table(degree), cost_table(2 * degree)
    for operation in cost.milliseconds:
        times = [cost(operation, level) for level in range(20)]
        assert times[5] > times[1] >= 0
        assert times[19] > times[7]
        assert larger(operation, 5) > cost(operation, 5)


def test_a_backend_without_a_cost_table_is_refused() -> None:
    with pytest.raises(PlanError, match=r"no cost table for backend 'abacus'; there are .*'tenseal'"):
        cost_table(8192, "abacus")

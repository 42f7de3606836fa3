"""Products of two tensors: what the search aligns, at which levels, and that counts are those of the circuit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import with_zeros
from random_networks import (
    assert_runs,
    branching,
    branching_networks,
    circuit_of,
    convolution,
    dense,
    planned,
    polynomial,
    slots_for,
)

from heinfer.circuit.counts import count_layers
from heinfer.circuit.ir import Circuit
from heinfer.circuit.passes import Scales, assign_scales
from heinfer.costs.prediction import predict
from heinfer.costs.tables import cost_table
from heinfer.lowering.lower import lower
from heinfer.network.folding import fold
from heinfer.network.ir import INPUT, Network
from heinfer.network.joints import AffineSum, Product
from heinfer.network.operators import Affine, AveragePool, Flatten, Square
from heinfer.planner.plan import LinearStep, Plan, ProductStep
from heinfer.planner.search.merging import Merging

RNG = np.random.default_rng(7)
ONE, TWO, THREE, FOUR, LAST = (convolution(RNG, 2, 2, 3, 1, 1) for _ in range(5))
ACT = polynomial(RNG, 2)
SHAPE = (2, 4, 4)

GATE = branching(SHAPE, (ONE, INPUT), (TWO, INPUT), (Product(), 0, 1), (LAST, 2))

CASES = [
    pytest.param(GATE, 3, id="two convolutions"),
    pytest.param(branching(SHAPE, (ONE, INPUT), (Product(), INPUT, 0), (LAST, 1)), 3, id="the input"),
    pytest.param(
        branching(
            SHAPE,
            *[(c, INPUT) for c in (ONE, TWO, THREE, FOUR)],
            (Product(), 0, 1),
            (Product(), 2, 3),
            (Product(), 4, 5),
            (LAST, 6),
        ),
        4,
        id="a product of products",
    ),
    pytest.param(branching(SHAPE, (ONE, INPUT), (Square(), 0), (Product(), 0, 1), (LAST, 2)), 4, id="a cube"),
    pytest.param(
        branching(SHAPE, (ONE, INPUT), (ACT, INPUT), (TWO, 1), (ACT, 2), (THREE, 3), (Product(), 0, 4), (LAST, 5)),
        7,
        id="branches of different depths",
    ),
    pytest.param(
        branching((8,), (dense(RNG, 8, 5), INPUT), (dense(RNG, 8, 5), INPUT), (Product(), 0, 1), (dense(RNG, 5, 2), 2)),
        3,
        id="dense layers",
    ),
    pytest.param(
        branching(
            (1, 8, 8),
            (convolution(RNG, 1, 3, 3, 2, 1), INPUT),
            (convolution(RNG, 1, 3, 5, 2, 2), INPUT),
            (Product(), 0, 1),
            (convolution(RNG, 3, 2, 3, 1, 1), 2),
            (Flatten(), 3),
            (dense(RNG, 32, 3), 4),
        ),
        3,
        id="strides",
    ),
    pytest.param(branching(SHAPE, (ONE, INPUT), (TWO, INPUT), (Product(), 0, 1)), 3, id="at the end"),
]


def typed_levels(plan: Plan, circuit: Circuit) -> tuple[int, ...]:
    scales = Scales(34.0, (24.0,) * len(circuit.layers))
    return assign_scales(circuit, plan.parameters, plan.input_level, scales).levels


@pytest.mark.parametrize(("network", "levels"), CASES)
def test_a_product_is_planned_and_computed(network: Network, levels: int) -> None:
    folded = fold(network)
    plan = planned(folded, 64)
    assert_runs(network, plan)
    assert plan.input_level == levels
    circuit = lower(plan)  # before rotations that two maps of one tensor have in common are made one
    for step, counts in zip(plan.steps, count_layers(circuit), strict=True):
        if isinstance(step, LinearStep):
            assert (counts.rotations, counts.hma) == (step.plan.counts.rotations, step.plan.counts.hma)
        else:
            assert counts.ct_ct_mults == counts.rescales == counts.key_switches - counts.rotations > 0
            assert counts.rotations == (counts.rescales if isinstance(step, ProductStep) and step.shift else 0)
    cost = cost_table(plan.parameters.ring_degree)
    assert plan.price(cost) == pytest.approx(sum(predict(circuit, typed_levels(plan, circuit), cost)), rel=0.05)


@settings(max_examples=25, deadline=None)
@given(branching_networks(blocks=2, side=5, products=True), st.sampled_from([1, 2]))
def test_any_network_with_products_is_computed(network: Network, planes: int) -> None:
    folded = fold(network)
    assert_runs(network, planned(folded, planes * slots_for(folded)))


def test_counts_never_depend_on_the_factors_values() -> None:
    folded = fold(GATE)
    zeros = tuple(
        replace(node, operator=Affine(with_zeros(node.operator.map))) if isinstance(node.operator, Affine) else node
        for node in folded.nodes
    )
    one, other = (circuit_of(planned(network, 64)) for network in (folded, replace(folded, nodes=zeros)))
    assert one.ops == other.ops


def test_what_is_multiplied_with_each_other_lies_alike() -> None:
    """Squares lie as what is squared: only through a map is a tensor free to lie elsewhere."""
    folded = fold(
        branching(
            SHAPE,
            (ONE, INPUT),
            (Square(), 0),
            (TWO, INPUT),
            (Product(), 1, 2),
            (LAST, 3),
            (Square(), 4),
            (AveragePool((2, 2), (2, 2)), 5),
        )
    )
    assert not any(isinstance(node.operator, AffineSum) for node in folded.nodes)
    group = frozenset({0, 1, 2, 3})
    assert Merging(folded).partners == dict.fromkeys(group, group)

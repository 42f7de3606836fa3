"""Chebyshev series: as numpy has them, in the fewest levels, with few products, whatever the coefficients are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import SEEDS, assert_runs, branching, circuit_of, convolution, dense
from rings import tiny_parameters

from heinfer.circuit.counts import count_circuit
from heinfer.circuit.ir import Kind
from heinfer.circuit.passes import Scales, assign_scales
from heinfer.costs.prediction import predict
from heinfer.costs.tables import cost_table
from heinfer.errors import PlanError, ShapeError
from heinfer.lowering.lower import lower
from heinfer.network.balancing import balance
from heinfer.network.folding import fold
from heinfer.network.ir import INPUT, Network
from heinfer.network.joints import Add, Product
from heinfer.network.operators import Affine, Chebyshev, Flatten, Polynomial
from heinfer.planner.plan import SeriesStep
from heinfer.planner.search.search import plan_network
from heinfer.planner.series import depth_of, lines_of
from heinfer.planner.validate import validate_plan

RNG = np.random.default_rng(3)
CONV, LAST = convolution(RNG, 1, 3, 3, 2, 1), convolution(RNG, 3, 2, 3, 2, 1)


def series(degree: int, channels: int = 3, seed: int = 0) -> Chebyshev:
    rng = np.random.default_rng(seed)
    return Chebyshev(rng.normal(size=(channels, degree + 1)), rng.normal(size=channels), rng.uniform(4, 5, channels))


def activated(*operators: Chebyshev | Polynomial) -> Network:
    """A convolution, activations, a strided convolution, another activation and a dense layer."""
    nodes = [(CONV, INPUT), *((op, i) for i, op in enumerate(operators)), (LAST, len(operators))]
    end = len(nodes) - 1
    return branching((1, 8, 8), *nodes, (series(3, 1), end), (Flatten(), end + 1), (dense(RNG, 8, 3), end + 2))


def planned(network: Network):
    return plan_network(fold(network), tiny_parameters(128, (28,) + (26,) * 14))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 15), st.integers(1, 3), SEEDS)
def test_lines_are_the_series(degree: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=(channels, degree + 1)) * (rng.random((channels, degree + 1)) < 0.7)
    lines = lines_of(coefficients)
    u = rng.uniform(-2, 2, (channels, 20))
    values, depths = [u], [0]
    for line in lines:
        value = sum((weight[:, None] * values[i] for i, weight in line.weights.items()), np.zeros(1))
        value = value if line.constant is None else value + line.constant[:, None]
        value = value + values[line.factors[0]] * values[line.factors[1]] if line.factors else value
        assert line.depth > max(depths[read] for read in line.reads)
        values.append(value + 0 * u)
        depths.append(line.depth)
    expected = [np.polynomial.chebyshev.chebval(row / 2, c) for row, c in zip(u, coefficients, strict=True)]
    np.testing.assert_allclose(values[-1], expected, atol=1e-13 * (1 + np.abs(coefficients).sum()))
    assert depths[-1] == depth_of(degree) == int(np.ceil(np.log2(degree + 1)))
    assert max(np.abs(value).max() for value in values) < 20 * (1 + np.abs(coefficients).sum())  # nothing blows up


@pytest.mark.parametrize(
    ("degree", "products"),
    list(enumerate((1, 2, 2, 3, 4, 5, 4, 5, 5, 6, 7, 7, 8, 9), start=2)),
)
def test_products_are_few(degree: int, products: int) -> None:
    assert sum(bool(line.factors) for line in lines_of(np.zeros((1, degree + 1)))) == products


@pytest.mark.parametrize("degree", [2, 3, 5, 7, 8, 15])
def test_a_series_is_planned_and_computed(degree: int) -> None:
    network = activated(series(degree))
    plan = planned(network)
    assert_runs(network, plan)
    assert plan.input_level == 1 + depth_of(degree) + 1 + 2 + 1
    circuit = lower(plan)
    typed = assign_scales(circuit, plan.parameters, plan.input_level, Scales(34.0, (24.0,) * len(circuit.layers)))
    cost = cost_table(8192)
    assert plan.price(cost) == pytest.approx(sum(predict(circuit, typed.levels, cost)), rel=0.02)
    for _, op in circuit:
        if op.kind is Kind.ADD:
            one, other = (typed.types[a].scale for a in op.args)
            assert abs(one - other) < 2.0**-52 * max(one, other)


def test_a_series_meets_other_branches() -> None:
    network = branching(
        (2, 4, 4),
        (series(5, 2), INPUT),
        (convolution(RNG, 2, 2, 3, 1, 1), 0),
        (Add(), 0, 1),
        (Product(), 0, 2),
        (convolution(RNG, 2, 2, 3, 1, 1), 3),
    )
    assert_runs(network, planned(network))


def test_a_series_of_a_series_and_one_of_degree_one() -> None:
    inner, line = series(2), series(1)
    folded = fold(activated(line, inner, series(3, 3, 1)))
    kinds = [type(node.operator) for node in folded.nodes]
    assert kinds == [Affine, Chebyshev, Affine, Chebyshev, Affine, Chebyshev, Affine]
    network = activated(line, inner)
    assert_runs(network, planned(network))


def test_counts_never_depend_on_coefficients() -> None:
    one = series(7)
    others = [replace(one, coefficients=0 * one.coefficients), replace(one, coefficients=one.coefficients[::-1] ** 3)]
    circuits = [circuit_of(planned(activated(op))) for op in (one, *others)]
    assert all(circuit.ops == circuits[0].ops for circuit in circuits[1:])
    assert count_circuit(circuits[0]).ct_ct_mults == 5 * 1 + 2 * 1


def test_a_balanced_series_keeps_its_interval() -> None:
    tiny = replace(series(5), coefficients=1e-6 * series(5).coefficients)
    network = activated(tiny)
    folded = fold(network)
    x = np.random.default_rng(0).random((4, 1, 8, 8))
    balanced = balance(folded, x, is_classification=False)
    values = dict(enumerate(balanced.network.values(x), start=-1))
    for node, reads, expected in zip(folded.nodes, folded.reads, folded.shapes, strict=True):
        if isinstance(node.operator, Chebyshev):
            assert np.abs(values[reads[0]]).max() < 2.5
            assert values[reads[0]].shape[1:] == expected
    assert np.abs(values[1]).max() > 1  # the tiny series
    np.testing.assert_allclose(np.ldexp(balanced.network(x), -balanced.exponents[0]), folded(x), rtol=1e-9)


def test_unused_slots_are_zero_before_a_series() -> None:
    plan = planned(activated(series(7)))
    [step, *_] = [step for step in plan.steps if isinstance(step, SeriesStep)]
    assert not step.layout.has_free_slots
    position = plan.steps.index(step)
    wrong = replace(step, layout=step.layout.shifted(1))
    with pytest.raises(PlanError, match=f"^{step.name}: its constants are for another layout"):
        validate_plan(replace(plan, steps=(*plan.steps[:position], wrong, *plan.steps[position + 1 :])))


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (lambda: Chebyshev(np.ones((1, 17)), np.zeros(1), np.ones(1)), r"degree 1 to 15 .* not \(1, 17\)"),
        (lambda: Chebyshev(np.ones((1, 1)), np.zeros(1), np.ones(1)), r"degree 1 to 15 .* not \(1, 1\)"),
        (lambda: Chebyshev(np.ones((1, 4)), np.zeros(1), np.zeros(1)), r"radius of a series must be positive"),
        (lambda: series(3, 2).output_shape((3, 4, 4)), r"a series for 2 channels, got \(3, 4, 4\)"),
    ],
)
def test_a_series_that_cannot_be_is_refused(made, complaint: str) -> None:
    with pytest.raises(ShapeError, match=complaint):
        made()

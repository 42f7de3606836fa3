"""Networks with branches, planned, lowered, and run: in cleartext and on real SEAL at 128-bit parameters."""

from dataclasses import replace
from functools import cache
from io import StringIO
from itertools import pairwise

import numpy as np
import pytest
from encrypted import EncryptedRun, precision_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import (
    assert_runs,
    branching,
    branching_networks,
    chain,
    circuit_of,
    convolution,
    dense,
    planned,
    polynomial,
    slots_for,
)
from rich.console import Console
from rings import tiny_parameters

from heinfer.circuit.counts import count_circuit, count_layers
from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.passes import Scales, assign_scales
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.seal import Ring
from heinfer.compiler.compile import compile_network
from heinfer.compiler.model import CompiledModel
from heinfer.costs.prediction import predict
from heinfer.costs.tables import cost_table
from heinfer.errors import PlanError
from heinfer.formats import bundle as bundles
from heinfer.formats.manifest import Preprocessing
from heinfer.network.folding import fold
from heinfer.network.ir import INPUT, Network
from heinfer.network.joints import Add, Concat
from heinfer.network.operators import AveragePool, Flatten, Operator
from heinfer.planner.plan import LinearStep, Plan
from heinfer.planner.requirements import DEFAULT, Requirements
from heinfer.planner.search.search import plan_network
from heinfer_cli.report_table import print_report


def conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, seed: int = 0) -> Operator:
    return convolution(np.random.default_rng(seed), c_in, c_out, kernel, stride, kernel // 2)


def act(channels: int) -> Operator:
    return polynomial(np.random.default_rng(1), channels)


def fc(inputs: int, outputs: int) -> Operator:
    return dense(np.random.default_rng(2), inputs, outputs)


POOL = AveragePool((2, 2), (2, 2))

# [conv, act, conv, + conv], act, dense
RESIDUAL = branching(
    (1, 8, 8),
    (conv(1, 2, 3, 2), INPUT),
    (act(2), 0),
    (conv(2, 2), 1),
    (conv(1, 2, 1, 2), INPUT),
    (Add(), 2, 3),
    (act(2), 4),
    (Flatten(), 5),
    (fc(32, 3), 6),
)
# conv, act, cat(itself, act(conv)), dense
JOINED = branching(
    (1, 8, 8),
    (conv(1, 2, 3, 2), INPUT),
    (act(2), 0),
    (conv(2, 1), 1),
    (act(1), 2),
    (Concat(), 1, 3),
    (Flatten(), 4),
    (fc(48, 3), 5),
)

# Every network -------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(branching_networks(blocks=1, side=5), st.sampled_from([1, 2]))
def test_a_planned_network_computes_the_network(network: Network, planes: int) -> None:
    folded = fold(network)
    plan = planned(folded, planes * slots_for(folded))
    circuit = assert_runs(network, plan)
    layers = "+".join(layer.name for layer in circuit.layers).split("+")
    assert sorted(layers) == sorted("+".join(node.name for node in folded.nodes).split("+"))
    types = typed(plan, circuit).types  # levels and scales agree wherever tensors meet
    assert {types[o].level for o in circuit.outputs} == {0}


def typed(plan: Plan, circuit: Circuit) -> TypedCircuit:
    """The circuit when all layers with factors land on 24 bits."""
    scales = Scales(34.0, (24.0,) * len(circuit.layers))
    return assign_scales(circuit, plan.parameters, plan.input_level, scales)


def tower(*heights: int) -> Network:
    """Branches of so many convolutions with activations, all of one tensor, and their sum."""
    nodes: list = [(conv(1, 2), INPUT), (act(2), 0)]
    ends = []
    for height in heights:
        ends.append(1)
        for _ in range(height):
            nodes += [(conv(2, 2), ends[-1]), (act(2), len(nodes))]
            ends[-1] = len(nodes) - 1
    return branching((1, 4, 4), *nodes, (Add(), *ends), (conv(2, 1), len(nodes)))


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(tower(2, 1, 0), id="branches of different depths, a tensor that three read"),
        pytest.param(tower(1, 1), id="branches of one depth"),
        pytest.param(branching((2, 4, 4), (conv(2, 2), INPUT), (act(2), 0), (Add(), 1, INPUT)), id="input read late"),
        pytest.param(
            branching((2, 4, 4), (act(2), INPUT), (conv(2, 4, 3, 2), INPUT), (POOL, 0), (Concat(), 1, 2), (act(6), 3)),
            id="the input in two branches, an activation after a concatenation",
        ),
        pytest.param(
            branching((8,), (fc(8, 4), INPUT), (act(4), 0), (fc(4, 8), 1), (Add(), INPUT, 2), (fc(8, 2), 3)),
            id="dense layers",
        ),
    ],
)
def test_unusual_branches_are_planned(network: Network) -> None:
    assert_runs(network, planned(fold(network), 64))


def test_a_short_branch_is_made_at_a_low_level() -> None:
    """Its operations are cheaper there, and what it reads is brought down for nothing."""
    network = tower(2, 1)
    plan = planned(fold(network), 64)
    made = {step.name: step.level - 1 for step in plan.steps}
    assert made["convolution6"] == made["convolution4"] == made["convolution2"] - 2
    circuit = circuit_of(plan)
    kinds = [op.kind for op in circuit.ops]
    assert kinds.count(Kind.DROP_LEVEL) == 2  # of one tensor
    cost = cost_table(plan.parameters.ring_degree)
    assert plan.price(cost) == pytest.approx(sum(predict(circuit, typed(plan, circuit).levels, cost)), rel=0.05)


# Counts --------------------------------------------------------------------------------------------


def counted(network: Network) -> tuple[int, int, int, int]:
    """Levels, rotations, key switches and HMAs of a plan at 1024 slots."""
    plan = planned(fold(network), 1024)
    circuit = assert_runs(network, plan)
    for step, counts in zip(plan.steps, count_layers(circuit), strict=True):
        if isinstance(step, LinearStep):
            assert (counts.rotations, counts.hma) == (step.plan.counts.rotations, step.plan.counts.hma)
    counts = count_circuit(circuit)
    return plan.input_level, counts.rotations, counts.key_switches, counts.hma


def test_a_residual_of_linear_maps_takes_nothing() -> None:
    """x + conv(x) has the diagonals of conv when these have the centre's."""
    first, rest = conv(1, 4), [act(4), Flatten(), fc(256, 5)]
    plain = chain((1, 8, 8), first, conv(4, 4), *rest)
    residual = branching(
        (1, 8, 8), (first, INPUT), (conv(4, 4), 0), (Add(), 0, 1), *((op, 2 + i) for i, op in enumerate(rest))
    )
    assert counted(residual) == counted(plain)


def block(shortcut: bool) -> Network:
    nodes = [(conv(1, 4, 5, 2), INPUT), (act(4), 0), (conv(4, 4), 1), (act(4), 2), (conv(4, 4), 3)]
    nodes += [(Add(), 4, 1)] if shortcut else []
    rest = [act(4), POOL, Flatten(), fc(64, 10)]
    return branching((1, 16, 16), *nodes, *((op, len(nodes) - 1 + i) for i, op in enumerate(rest)))


def test_a_shortcut_takes_one_product_and_two_rotations() -> None:
    """The tensors that a sum reads are planned as one: reductions and giant steps are shared, no level is added."""
    assert counted(block(shortcut=False)) == (7, 33, 36, 69)
    assert counted(block(shortcut=True)) == (7, 35, 38, 70)


def test_a_convolution_in_the_shortcut_takes_no_level() -> None:
    nodes = [
        (conv(1, 4), INPUT),
        (act(4), 0),
        (conv(4, 4, 3, 2), 1),
        (act(4), 2),
        (conv(4, 4), 3),
        (conv(4, 4, 1, 2), 1),
    ]
    network = branching((1, 8, 8), *nodes, (Add(), 4, 5), (act(4), 6), (Flatten(), 7), (fc(64, 3), 8))
    assert counted(network) == (7, 35, 38, 58)


def test_counts_never_depend_on_weights() -> None:
    def build(seed: int, factor: float) -> Network:
        ops = [convolution(np.random.default_rng(seed + i), 2, 2, 3, 1, 1) for i in range(2)]
        one, two = (replace(op, weight=factor * op.weight) for op in ops)
        nodes = [(one, INPUT), (act(2), 0), (two, 1), (act(2), 2), (Concat(), 1, 3), (Flatten(), 4)]
        return branching((2, 4, 4), *nodes, (fc(64, 2), 5))

    circuits = [circuit_of(planned(fold(build(*case)), 128)) for case in ((0, 1.0), (5, 1.0), (9, 0.0))]
    for first, second in pairwise(circuits):
        assert (first.ops, first.outputs, first.layers) == (second.ops, second.outputs, second.layers)


def test_too_few_levels_are_refused_by_the_layer_that_finds_none() -> None:
    with pytest.raises(PlanError, match=r"^dense7 is layer 5 of 5 .* the parameters give 4") as refusal:
        plan_network(fold(RESIDUAL), tiny_parameters(128, (28,) * 5))
    assert "larger ring" in str(refusal.value)


# Compiled ------------------------------------------------------------------------------------------

RANGE = Preprocessing(divisor=255, mean=(0.0,), std=(1.0,), low=0.0, high=1.0)


@cache
def compiled(network: Network, requirements: Requirements = DEFAULT) -> CompiledModel:
    calibration = np.random.default_rng(1).random((16, *network.input_shape))
    return compile_network(network, calibration, name="small", preprocessing=RANGE, requirements=requirements)


@pytest.mark.parametrize("network", [pytest.param(RESIDUAL, id="sum"), pytest.param(JOINED, id="concatenation")])
def test_an_encrypted_run_equals_cleartext_within_its_own_budget(network: Network) -> None:
    model = compiled(network)
    encrypted = EncryptedRun(model, Ring.secure(model.plan.parameters))
    assert model.plan.parameters.ring_degree == 8192
    for x in np.random.default_rng(3).random((2, 1, 8, 8)):
        exact = network(x[None])[0]
        assert np.abs(model(x[None])[0] - exact).max() < 1e-10 * np.abs(exact).max()
        deviation = model.plan.output.unpack(model.simulate(x[None]).deviation)
        assert (np.abs(encrypted(x) - exact) < 6 * deviation).all()
        assert precision_bits(encrypted(x), exact) > 8
    planned_counts = count_circuit(model.bundle.circuit)
    assert encrypted.program.executed == replace(planned_counts, rotations_hoisted=0)
    assert planned_counts == model.report.counts


def test_sums_of_products_of_several_scales_land_on_one() -> None:
    model = compiled(RESIDUAL)
    circuit, types = model.bundle.circuit, model.bundle.typed.types
    read = [
        types[op.args[0]].scale
        for op in circuit.ops
        if op.kind is Kind.MULTIPLY_PLAIN and "add" in circuit.layer_name(op)
    ]
    assert len(set(read)) > 1
    for _, op in circuit:
        if op.kind is Kind.ADD:
            one, other = (types[a].scale for a in op.args)
            assert abs(one - other) < 2.0**-52 * max(one, other)  # SEAL's own criterion, which is strict


def test_a_batch_runs_through_branches() -> None:
    model = compiled(JOINED, Requirements(batch=4))
    x = np.random.default_rng(2).random((8, 1, 8, 8))
    np.testing.assert_allclose(model(x), JOINED(x), atol=1e-9)


def test_a_bundle_needs_no_network() -> None:
    model = compiled(JOINED)
    loaded = bundles.from_bytes(bundles.to_bytes(model.bundle))
    assert loaded.circuit.ops == model.bundle.circuit.ops


def test_the_report_says_what_a_layer_reads_and_of_whom() -> None:
    model = compiled(RESIDUAL)
    layer = next(layer for layer in model.report.layers if "add" in layer.name)
    assert layer.name == "convolution2+add4"
    assert layer.layout_in.endswith("(of the input)")
    assert "(of polynomial1) and " in layer.layout_in
    assert [layer.level for layer in model.report.layers] == list(range(model.plan.input_level, 0, -1))
    text = StringIO()
    print_report(model.report, Console(file=text, width=400))
    assert f"from {layer.layout_in}" in text.getvalue()

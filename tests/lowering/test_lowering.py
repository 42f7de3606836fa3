"""Plans as circuits: they compute the map into the layout that the plan names."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from packings import conv_pack, packed_windows
from planning import (
    SEEDS,
    all_plans,
    evaluated,
    integer_input,
    lowered,
    naive_map,
    packed_with_garbage,
    plans_of,
    problems,
    random_layout,
    random_map,
    two_layers,
    untrue_slots,
    with_zeros,
)
from rings import tiny_parameters

from heinfer.circuit.counts import count_circuit, count_layers
from heinfer.circuit.interpret import run
from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.passes import mark_hoisting, merge_common_subexpressions, remove_dead_code
from heinfer.circuit.typed import TypedCircuit
from heinfer.circuit.validate import validate_structure
from heinfer.layout.packings import cyclic_pack, dense_pack
from heinfer.lowering.lower import lower
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Convolution, Dense
from heinfer.planner.kernel.diagonals import DiagonalProblem
from heinfer.planner.kernel.linear import LinearPlan, Rescale, diagonal_sets
from heinfer.planner.plan import LinearStep

few = settings(max_examples=20, deadline=None)


def scaled(circuit: Circuit, scale: float = 2.0**20) -> Circuit:
    """The circuit with one scale for all factors."""
    ops = (replace(op, scale=scale) if op.kind is Kind.MULTIPLY_PLAIN else op for op in circuit.ops)
    return replace(circuit, ops=tuple(ops))


def optimised(circuit: Circuit) -> Circuit:
    return mark_hoisting(remove_dead_code(merge_common_subexpressions(circuit)))


# Laws of one layer -------------------------------------------------------------------------------


@few
@given(problems(), SEEDS)
def test_a_circuit_computes_the_map_into_the_layout_that_its_plan_names(problem: DiagonalProblem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = integer_input(problem.map, rng)
    slots = packed_with_garbage(problem.source, x, rng)
    for plan in plans_of(problem):
        assert not untrue_slots(plan.target, naive_map(problem.map, x), evaluated(plan, slots))


@few
@given(problems())
def test_a_plan_counts_what_its_circuit_does(problem: DiagonalProblem) -> None:
    for plan in plans_of(problem):
        circuit, planned = lowered(plan), plan.counts
        validate_structure(circuit)
        counts = count_circuit(circuit)
        assert (counts.rotations, counts.hma) == (planned.rotations, planned.hma)
        before_giants = plan.rescale is Rescale.BEFORE_GIANTS
        assert counts.rescales == (planned.groups if before_giants else planned.targets)
        assert set(circuit.steps()) == plan.keys


@few
@given(problems())
def test_every_way_through_a_layer_takes_one_level(problem: DiagonalProblem) -> None:
    parameters = tiny_parameters(2 * problem.source.slots, (28, 26))
    for plan in plans_of(problem):
        typed = TypedCircuit(scaled(lowered(plan)), parameters, 1, 2.0**24)
        assert [value.level for value in typed.output_types] == [0] * plan.target.ciphertexts


@few
@given(problems(), SEEDS)
def test_passes_keep_what_a_layer_computes(problem: DiagonalProblem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for plan in plans_of(problem)[:4]:
        circuit = lowered(plan)
        slots = rng.normal(size=(2, *problem.source.index.shape))
        assert np.array_equal(run(optimised(circuit), slots), run(circuit, slots))
        assert count_circuit(optimised(circuit)).rotations == count_circuit(circuit).rotations


@settings(max_examples=6, deadline=None)
@given(SEEDS)
def test_counts_and_keys_never_depend_on_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    linear = random_map(rng, 12, 10, 0.4)
    zeros = with_zeros(linear)
    source, target = random_layout(rng, 12, 1, 16), random_layout(rng, 10, 2, 16)
    ones, others = (plans_of(DiagonalProblem(m, source, target)) for m in (linear, zeros))
    for one, other in zip(ones, others, strict=True):
        assert one.target == other.target
        circuits = [optimised(lowered(plan)) for plan in (one, other)]
        assert count_circuit(circuits[0]) == count_circuit(circuits[1])
        assert circuits[0].ops == circuits[1].ops


# Where the rescale is ----------------------------------------------------------------------------


def folded_dense() -> list[LinearPlan]:
    op = Dense(np.arange(32.0).reshape(4, 8), np.arange(4.0))
    problem = DiagonalProblem(op.linear_map((8,)), dense_pack((8,), 16), cyclic_pack((4,), 16), (4, 8))
    return list(all_plans(diagonal_sets(problem)[0]))


@pytest.mark.parametrize(
    ("rescale", "rotated_before", "rotated_after"),
    [
        (Rescale.BEFORE_GIANTS, "babies", "giants and reductions"),
        (Rescale.AFTER_GIANTS, "babies and giants", "reductions"),
        (Rescale.AFTER_REDUCTIONS, "babies and giants and reductions", ""),
    ],
)
def test_a_layer_rescales_where_its_plan_says(rescale: Rescale, rotated_before: str, rotated_after: str) -> None:
    parameters = tiny_parameters(32, (28, 26))
    for plan in (p for p in folded_dense() if p.rescale is rescale):
        typed = TypedCircuit(scaled(lowered(plan)), parameters, 1, 2.0**24)
        levels = [typed.levels[number] for number, op in typed.circuit if op.kind is Kind.ROTATE]
        counted = vars(plan.counts)
        for level, names in ((1, rotated_before), (0, rotated_after)):
            assert levels.count(level) == sum(counted[name] for name in names.split(" and ") if name)


def test_a_layer_after_whose_sums_nothing_is_folded_has_two_places_to_rescale() -> None:
    op = Dense(np.ones((4, 8)), np.zeros(4))
    problem = DiagonalProblem(op.linear_map((8,)), dense_pack((8,), 16), dense_pack((4,), 16))
    assert {plan.rescale for plan in plans_of(problem)} == {Rescale.BEFORE_GIANTS, Rescale.AFTER_GIANTS}


# ConvPack ----------------------------------------------------------------------------------------


def assert_scalar_multiply_adds(problem: DiagonalProblem, products: int) -> None:
    """The layer is no rotation, and every factor one number for all slots."""
    plan = min(plans_of(problem), key=lambda p: p.counts.rotations)
    circuit = lowered(plan)
    counts = count_circuit(circuit)
    assert (counts.rotations, counts.hma) == (0, products)
    factors = [circuit.constants[op.constant] for op in circuit.ops if op.kind is Kind.MULTIPLY_PLAIN]
    assert {factor.shape for factor in factors} == {(1,)}
    assert plan.target.index.tolist() == problem.target.index.tolist()
    rng = np.random.default_rng(0)
    x = integer_input(problem.map, rng)
    slots = packed_with_garbage(problem.source, x, rng)
    assert not untrue_slots(plan.target, naive_map(problem.map, x), evaluated(plan, slots))


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((1, 6, 6), (3, 3), (1, 1), (0, 0)),
        ((1, 6, 6), (3, 3), (1, 1), (1, 1)),
        ((2, 5, 5), (3, 3), (2, 2), (1, 1)),
        ((3, 4, 6), (2, 2), (2, 2), (0, 0)),
        ((2, 3, 4), (1, 1), (1, 1), (0, 0)),
        ((1, 1, 9), (1, 3), (1, 2), (0, 0)),
    ],
)
def test_a_convolution_of_packed_windows_is_scalar_multiply_adds(
    shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-9, 10, (3, shape[0], *kernel)).astype(float)
    linear = Convolution(weight, rng.integers(-9, 10, 3).astype(float), stride, padding).linear_map(shape)
    source = packed_windows(shape, kernel, stride, padding, 64)
    assert_scalar_multiply_adds(DiagonalProblem(linear, source, conv_pack(linear.out_shape, 64)), 3 * weight[0].size)


@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(1, 4, 1), (4, 1, 1), (3, 5, 1), (4, 4, 2)])
def test_a_pointwise_convolution_between_conv_packs_is_scalar_multiply_adds(c_in: int, c_out: int, groups: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-9, 10, (c_out, c_in // groups, 1, 1)).astype(float)
    linear = Convolution(weight, np.arange(c_out) + 1.0, groups=groups).linear_map((c_in, 3, 5))
    problem = DiagonalProblem(linear, conv_pack((c_in, 3, 5), 16), conv_pack((c_out, 3, 5), 16))
    assert_scalar_multiply_adds(problem, weight.size)


def test_equal_weights_are_no_scalar_where_a_slot_must_stay_zero() -> None:
    identity = LinearMap.from_entries((8,), (4,), np.arange(4), np.arange(4), np.full(4, 3.0))
    problem = DiagonalProblem(identity, dense_pack((8,), 8), dense_pack((4,), 8))
    [plan, _] = plans_of(problem)
    assert lowered(plan).constants[0].tolist() == [3, 3, 3, 3, 0, 0, 0, 0]
    assert plan.target == dense_pack((4,), 8)


# Whole plans -------------------------------------------------------------------------------------


def test_layers_run_one_after_the_other() -> None:
    plan, first, second = two_layers()
    circuit = lower(plan)
    validate_structure(circuit)
    x = np.random.default_rng(0).integers(-9, 10, (3, 4)).astype(float)
    assert np.array_equal(plan.output.unpack(run(circuit, plan.input.pack(x))), second(first(x) ** 2))
    typed = TypedCircuit(scaled(circuit), plan.parameters, plan.input_level, 2.0**24)
    assert {value.level for value in typed.output_types} == {0}


def test_every_operation_belongs_to_its_layer() -> None:
    plan, _, _ = two_layers()
    circuit = lower(plan)
    assert [layer.name for layer in circuit.layers] == ["one", "square", "two"]
    one, square, two = count_layers(circuit)
    for counts, step in ((one, plan.steps[0]), (two, plan.steps[2])):
        assert isinstance(step, LinearStep)
        assert (counts.rotations, counts.hma) == (step.plan.counts.rotations, step.plan.counts.hma)
    assert (square.ct_ct_mults, square.key_switches, square.rescales) == (2, 2, 2)
    assert one + square + two == count_circuit(circuit)
    assert all(op.layer >= 0 for op in circuit.ops if op.kind is not Kind.INPUT)


def test_a_bias_is_one_plaintext_a_ciphertext_and_none_when_there_is_none() -> None:
    with_bias, without = (lower(two_layers(bias)[0]) for bias in (True, False))
    kinds = [[op.kind for op in circuit.ops].count(Kind.ADD_PLAIN) for circuit in (with_bias, without)]
    assert kinds == [3, 0]

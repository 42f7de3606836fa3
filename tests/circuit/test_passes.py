"""Passes: before, expected, equal; and that random circuits compute the same."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import SEEDS

from heinfer.circuit.builder import Builder
from heinfer.circuit.counts import Counts, count_circuit
from heinfer.circuit.interpret import run
from heinfer.circuit.ir import Circuit, Kind, Layer, Op
from heinfer.circuit.passes import mark_hoisting, merge_common_subexpressions, remove_dead_code

ONE, TWO = np.arange(4.0), np.arange(4.0, 8.0)
X = Op(Kind.INPUT, input=0)


def circuit(ops: list[Op], outputs: tuple[int, ...], constants: tuple[np.ndarray, ...] = ()) -> Circuit:
    return Circuit(4, tuple(ops), outputs, constants)


def assert_same(got: Circuit, expected: Circuit) -> None:
    assert got.ops == expected.ops
    assert got.outputs == expected.outputs
    assert [c.tolist() for c in got.constants] == [c.tolist() for c in expected.constants]
    assert (got.slots, got.layers) == (expected.slots, expected.layers)


# Common subexpressions ---------------------------------------------------------------------------


def test_equal_rotations_are_computed_once() -> None:
    before = circuit([X, Op(Kind.ROTATE, (0,), step=1), Op(Kind.ROTATE, (0,), step=1), Op(Kind.ADD, (1, 2))], (3,))
    expected = circuit([X, Op(Kind.ROTATE, (0,), step=1), Op(Kind.ADD, (1, 1))], (2,))
    assert_same(merge_common_subexpressions(before), expected)


def test_what_follows_from_equal_values_is_equal() -> None:
    twice = [
        Op(Kind.ROTATE, (0,), step=1),
        Op(Kind.RESCALE, (1,)),
        Op(Kind.ROTATE, (0,), step=1),
        Op(Kind.RESCALE, (3,)),
    ]
    before = circuit([X, *twice], (2, 4))
    expected = circuit([X, *twice[:2]], (2, 2))
    assert_same(merge_common_subexpressions(before), expected)


def test_sums_and_products_do_not_depend_on_order() -> None:
    y = Op(Kind.INPUT, input=1)
    for kind in (Kind.ADD, Kind.MULTIPLY):
        before = circuit([X, y, Op(kind, (0, 1)), Op(kind, (1, 0))], (2, 3))
        assert_same(merge_common_subexpressions(before), circuit([X, y, Op(kind, (0, 1))], (2, 2)))


def test_other_steps_scales_constants_and_arguments_are_not_equal() -> None:
    ops = [
        X,
        Op(Kind.ROTATE, (0,), step=1),
        Op(Kind.ROTATE, (0,), step=2),
        Op(Kind.MULTIPLY_PLAIN, (0,), constant=0, scale=2.0),
        Op(Kind.MULTIPLY_PLAIN, (0,), constant=0, scale=4.0),
        Op(Kind.MULTIPLY_PLAIN, (0,), constant=1, scale=2.0),
        Op(Kind.MULTIPLY_PLAIN, (1,), constant=0, scale=2.0),
        Op(Kind.ADD_PLAIN, (0,), constant=0),
    ]
    before = circuit(ops, tuple(range(8)), (ONE, TWO))
    assert_same(merge_common_subexpressions(before), before)


def test_constants_that_happen_to_be_equal_stay_apart() -> None:
    """Or else counts would tell that weights are equal, or zero."""
    zeros = np.zeros(4)
    ops = [X, Op(Kind.MULTIPLY_PLAIN, (0,), constant=0), Op(Kind.MULTIPLY_PLAIN, (0,), constant=1)]
    before = circuit(ops, (1, 2), (zeros, zeros))
    assert_same(merge_common_subexpressions(before), before)


def test_equal_operations_of_two_layers_belong_to_the_first() -> None:
    layers = (Layer("one"), Layer("two"))
    ops = (X, Op(Kind.ROTATE, (0,), step=1, layer=0), Op(Kind.ROTATE, (0,), step=1, layer=1))
    merged = merge_common_subexpressions(Circuit(4, ops, (1, 2), (), layers))
    assert_same(merged, Circuit(4, ops[:2], (1, 1), (), layers))


# Dead code ---------------------------------------------------------------------------------------


def test_what_no_output_needs_is_removed() -> None:
    before = circuit(
        [
            X,
            Op(Kind.ROTATE, (0,), step=1),
            Op(Kind.MULTIPLY_PLAIN, (1,), constant=0),
            Op(Kind.MULTIPLY_PLAIN, (0,), constant=1),
            Op(Kind.ROTATE, (3,), step=2),
        ],
        (3,),
        (ONE, TWO),
    )
    expected = circuit([X, Op(Kind.MULTIPLY_PLAIN, (0,), constant=0)], (1,), (TWO,))
    assert_same(remove_dead_code(before), expected)


def test_inputs_stay_because_clients_send_them() -> None:
    ops = [X, Op(Kind.INPUT, input=1), Op(Kind.RESCALE, (0,))]
    assert_same(remove_dead_code(circuit(ops, (2,))), circuit(ops, (2,)))


def test_an_output_may_be_an_input_or_leave_twice() -> None:
    before = circuit([X, Op(Kind.RESCALE, (0,)), Op(Kind.ROTATE, (1,), step=1)], (0, 2, 2))
    assert_same(remove_dead_code(before), before)


# Hoisting ----------------------------------------------------------------------------------------


def test_rotations_of_one_value_share_a_group() -> None:
    before = [
        X,
        Op(Kind.ROTATE, (0,), step=1),
        Op(Kind.ROTATE, (1,), step=1),
        Op(Kind.ROTATE, (0,), step=2),
        Op(Kind.ADD, (2, 3)),
        Op(Kind.ROTATE, (4,), step=1),
        Op(Kind.ROTATE, (4,), step=3),
    ]
    expected = list(before)
    for number, group in ((1, 0), (3, 0), (5, 1), (6, 1)):
        expected[number] = replace(before[number], hoist=group)
    marked = mark_hoisting(circuit(before, (5, 6)))
    assert_same(marked, circuit(expected, (5, 6)))
    assert_same(mark_hoisting(marked), marked)
    assert (count_circuit(marked).rotations, count_circuit(marked).rotations_hoisted) == (5, 4)


# All passes --------------------------------------------------------------------------------------


@st.composite
def circuits(draw: st.DrawFn) -> Circuit:
    """Random programs with values that repeat and values that nobody reads."""
    rng = np.random.default_rng(draw(SEEDS))
    builder = Builder(4)
    values = [builder.input(0), builder.input(1)]
    vectors = rng.integers(-3, 4, (3, 4)).astype(float)
    for _ in range(draw(st.integers(1, 20))):
        x, y = (values[i] for i in rng.integers(0, len(values), 2))
        match rng.integers(4):
            case 0:
                values.append(builder.rotate(x, int(rng.integers(1, 4))))
            case 1:
                values.append(builder.add(x, y))
            case 2:
                values.append(builder.multiply_plain(x, vectors[rng.integers(3)]))
            case _:
                values.append(builder.add_plain(x, vectors[rng.integers(3)]))
    return builder.finish(tuple(values[i] for i in rng.integers(0, len(values), 2)))


@settings(max_examples=60, deadline=None)
@given(circuits(), SEEDS)
def test_passes_keep_what_a_circuit_computes_and_never_add_to_it(before: Circuit, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-3, 4, (2, 2, 4)).astype(float)
    for a_pass in (merge_common_subexpressions, remove_dead_code, mark_hoisting):
        after = a_pass(before)
        assert np.array_equal(run(after, x), run(before, x))
        for more, fewer in zip(vars(count_circuit(before)).items(), vars(count_circuit(after)).items(), strict=True):
            assert more[1] >= fewer[1] or more[0] == "rotations_hoisted"
        assert_same(a_pass(after), after)


# Counts ------------------------------------------------------------------------------------------


def test_counts_are_of_the_operations() -> None:
    builder = Builder(4)
    x = builder.input(0)
    builder.layer(Layer("layer"))
    square = builder.rescale(builder.square(x))
    total = builder.add_plain(builder.add(builder.rotate(square, 1), builder.multiply_plain(square, ONE)), TWO)
    counts = count_circuit(builder.finish((total,)))
    assert counts == Counts(
        rotations=1, rotations_hoisted=0, key_switches=2, hma=1, ct_ct_mults=1, plaintexts=2, rescales=1
    )
    assert builder.rotate(x, 0) == builder.rotate(x, 4) == x
    assert counts + Counts() == counts

"""Fewer keys: rotations composed of others, at the price of key switches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import SEEDS

from heinfer.circuit.builder import Builder
from heinfer.circuit.interpret import run
from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.levels import key_levels, levels
from heinfer.circuit.passes import merge_common_subexpressions
from heinfer.circuit.passes.key_set import compose_rotations, key_sets
from heinfer.circuit.validate import validate_structure
from heinfer.errors import CompileError

SLOTS = 16


def babies(*steps: int) -> Circuit:
    """A sum of rotations of one input."""
    builder = Builder(SLOTS)
    total = x = builder.input(0)
    for step in steps:
        total = builder.add(total, builder.rotate(x, step))
    return builder.finish((total,))


def rotations(circuit: Circuit) -> list[tuple[int, int]]:
    return [(op.args[0], op.step) for op in circuit.ops if op.kind is Kind.ROTATE]


def composed(circuit: Circuit, key_price: float = -1.0, most_keys: float = np.inf) -> Circuit:
    return compose_rotations(circuit, 3, lambda level: 1.0 + level, key_price, most_keys, lambda _level: 1)


def test_a_rotation_that_continues_another_needs_no_key_and_no_further_key_switch() -> None:
    circuit = composed(babies(1, 2, 3), key_price=0.1)
    assert circuit.steps() == (1,)
    assert len(rotations(circuit)) == 3
    assert rotations(circuit)[0] == (0, 1)


def test_steps_that_add_up_to_nothing_else_stay() -> None:
    assert composed(babies(5, 6, 7), key_price=100.0).steps() == (5, 6, 7)


def test_a_key_is_as_large_as_the_highest_level_of_its_use_wants() -> None:
    builder = Builder(SLOTS)
    x = builder.input(0)
    squared = builder.rescale(builder.square(x))
    low = builder.rotate(builder.rescale(squared), 1)
    circuit = builder.finish((builder.rotate(squared, 2), builder.add(low, builder.rotate(low, 2))))
    assert key_levels(circuit, 3) == {0: 3, 1: 1, 2: 2}
    (*_, fewest) = key_sets(circuit, 3, lambda level: 1.0 + level)
    assert fewest.levels == {0: 3, 1: 2}  # what was a rotation by 2 at level 2 is now two by 1


def test_a_limit_is_on_bytes_of_all_keys_at_their_levels() -> None:
    def within(most: int) -> tuple[int, ...]:
        return compose_rotations(circuit, 3, lambda _: 1.0, 0.0, most, lambda level: 100 * (level + 1)).steps()

    circuit = babies(1, 4, 5)
    assert within(1200) == (1, 4, 5)
    assert len(within(1199)) == len(within(800)) == 2
    with pytest.raises(CompileError, match="399 are allowed"):
        within(399)


def test_nothing_is_dropped_that_is_worth_its_key() -> None:
    circuit = babies(1, 4, 5)
    assert composed(circuit, key_price=0.0) is circuit


def test_a_dearer_key_is_dropped_for_a_key_switch() -> None:
    circuit = babies(2, 4)
    assert composed(circuit, key_price=0.5).steps() == (2,)  # 4 continues 2
    alone = Builder(SLOTS)
    x, y = alone.input(0), alone.input(1)
    circuit = alone.finish((alone.rotate(x, 2), alone.rotate(y, 4)))
    assert composed(circuit, key_price=3.9).steps() == (2, 4)
    assert rotations(composed(circuit, key_price=4.1)) == [(0, 2), (1, 2), (3, 2)]  # at level 3 one more costs 4


def test_keys_are_dropped_down_to_a_limit_those_first_that_cost_least() -> None:
    circuit = babies(1, 2, 3, 5, 8)
    assert len(composed(circuit, most_keys=3).steps()) == 3
    assert composed(circuit, most_keys=1).steps() == (1,)
    with pytest.raises(
        CompileError, match="1 rotation keys are the fewest that were found; all keys take 1 bytes then, 0 are allowed"
    ):
        composed(circuit, most_keys=0)


def test_a_composition_is_cheap_only_at_its_level() -> None:
    builder = Builder(SLOTS)
    x = builder.input(0)
    high, low = builder.rotate(x, 1), builder.rescale(x)
    circuit = builder.finish((high, builder.rotate(low, 2)))
    assert levels(circuit, 3) == [3, 3, 2, 2]
    assert composed(circuit, key_price=2.9).steps() == (1, 2)
    assert composed(circuit, key_price=3.1).steps() == (1,)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 6), st.floats(0, 20))
def test_composed_rotations_compute_the_same(seed: int, keys: int, key_price: float) -> None:
    rng = np.random.default_rng(seed)
    builder = Builder(SLOTS)
    values = [builder.input(0), builder.input(1)]
    for _ in range(10):
        values.append(builder.rotate(values[rng.integers(len(values))], int(rng.integers(1, SLOTS))))
        values.append(builder.add(values[rng.integers(len(values))], values[rng.integers(len(values))]))
    circuit = merge_common_subexpressions(builder.finish((values[-1], values[-2])))
    try:
        fewer = composed(circuit, key_price, keys)
    except CompileError:
        return
    assert set(fewer.steps()) <= set(circuit.steps())
    assert len(fewer.steps()) <= keys
    validate_structure(fewer)
    x = rng.normal(size=(1, 2, SLOTS))
    np.testing.assert_allclose(run(fewer, x), run(circuit, x))


def test_what_shares_digits_is_dearer_to_compose() -> None:
    sets = key_sets(babies(1, 2, 3), 3, lambda _: 10.0, lambda _: 4.0)
    # One key for all: 1, then 1 after 1, then 1 after that share nothing.
    assert [keys.milliseconds for keys in sets] == [10 + 4 + 4, 10 + 4 + 10, 10 + 10 + 10]


def test_every_set_has_one_key_less_and_takes_the_time_of_its_circuit() -> None:
    circuit = babies(1, 2, 3, 4, 7)
    sets = list(key_sets(circuit, 3, lambda level: 1.0 + level))
    assert [len(keys.kept) for keys in sets] == [5, 4, 3, 2, 1]
    assert [keys.milliseconds for keys in sets] == sorted(keys.milliseconds for keys in sets)
    for keys in sets:
        fewer = composed(circuit, most_keys=len(keys.kept), key_price=0.0)
        assert set(fewer.steps()) == keys.kept
        assert key_levels(fewer, 3) == keys.levels
        assert len(rotations(fewer)) * 4 == keys.milliseconds

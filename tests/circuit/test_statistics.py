"""What calibration says of values: bounds and powers, against the values themselves, all of them at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_circuits import random_circuits
from rings import tiny_parameters

from heinfer.circuit import interpret as interpreting
from heinfer.circuit.builder import Builder
from heinfer.circuit.interpret import interpret, run
from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.statistics import observe

PARAMETERS = tiny_parameters()
TOP, SLOTS = PARAMETERS.top_level, PARAMETERS.slots


def seen_inputs(circuit: Circuit, count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, circuit.inputs, circuit.slots))


@settings(max_examples=60, deadline=None)
@given(random_circuits(PARAMETERS, TOP, (1, 5, SLOTS - 3)), st.integers(1, 7))
def test_bounds_are_those_of_all_values_and_powers_of_what_is_multiplied(circuit: Circuit, count: int) -> None:
    inputs = seen_inputs(circuit, count)
    values = {number: value for number, _, value in interpret(circuit, inputs)}
    seen = observe(circuit, inputs, 1.5)
    assert seen.bounds == tuple(1.5 * float(np.abs(values[n]).max()) for n in range(len(circuit.ops)))
    np.testing.assert_array_equal(seen.outputs, np.stack([values[o] for o in circuit.outputs], axis=1))
    multiplied = {a for op in circuit.ops if op.kind in {Kind.MULTIPLY_PLAIN, Kind.MULTIPLY} for a in op.args}
    for number in multiplied:
        np.testing.assert_allclose(seen.power[number], (values[number] ** 2).mean(axis=0), rtol=1e-14)


@settings(max_examples=10, deadline=None)
@given(random_circuits(PARAMETERS, TOP, (1, 5)))
def test_how_many_inputs_are_interpreted_together_changes_nothing(circuit: Circuit) -> None:
    inputs = seen_inputs(circuit, 9)
    expected, outputs = observe(circuit, inputs, 1.0), run(circuit, inputs)
    for together in (1, 2, 9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interpreting, "_BYTES_AT_ONCE", 8 * SLOTS * together)
            found, again = observe(circuit, inputs, 1.0), run(circuit, inputs)
        assert found.bounds == expected.bounds
        np.testing.assert_array_equal(found.outputs, outputs)
        np.testing.assert_array_equal(again, outputs)
        for number in expected.power.sources:
            np.testing.assert_array_equal(found.power[number], expected.power[number])


def test_the_rotations_of_a_value_share_what_is_held_of_it() -> None:
    builder = Builder(SLOTS)
    source = builder.input(0)
    rotated = [builder.rotate(source, step) for step in (1, 2, 3)]
    products = [builder.multiply_plain(x, np.ones(SLOTS)) for x in (source, *rotated)]
    circuit = builder.finish(tuple(products))
    power = observe(circuit, seen_inputs(circuit, 3), 1.0).power
    assert set(power.sources) == {source, *rotated}
    assert set(power.of) == {source}

"""Random circuits: SEAL's words with every instruction set and every number of threads, and sound use of memory."""

from itertools import pairwise

import numpy as np
import pytest
from circuits import SCALE, Builder
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_circuits import random_circuits
from rings import tiny_parameters
from twin import Twin, instruction_sets

from heinfer.backends.native import NativeOptions, NativePlan, NativeProgram, NativeRing, native_plan
from heinfer.backends.native.fusion import MOST_ADDENDS, MOST_HOISTED, MOST_OPERANDS
from heinfer.backends.native.instructions import Rotations, Sum, inputs_of, outputs_of, rows_needed, steps_of
from heinfer.backends.native.waves import MOST_TOGETHER
from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.typed import TypedCircuit
from heinfer.errors import BackendError

PARAMETERS = tiny_parameters(64, (30, 24, 28, 30), 30)
LEVEL = PARAMETERS.top_level
STEPS = (1, 2, 3, 5, 16, 31)
TWINS = {draw: Twin(PARAMETERS, STEPS, draw) for draw in ("random", "extreme")}
CIRCUITS = random_circuits(PARAMETERS, LEVEL, STEPS)


def typed(circuit: Circuit) -> TypedCircuit:
    return TypedCircuit(circuit, PARAMETERS, LEVEL, SCALE)


@settings(max_examples=100, deadline=None)
@given(circuit=CIRCUITS, draw=st.sampled_from(["random", "extreme"]), threads=st.integers(1, 3))
def test_an_exact_run_gives_seals_words(circuit, draw, threads):
    twin = TWINS[draw]
    inputs = twin.ciphertexts(circuit.inputs, LEVEL)
    try:
        expected = twin.on_seal(circuit, inputs, LEVEL, SCALE)
    except BackendError as error:  # of constants this small, some are each other's opposite
        assume("transparent" not in str(error.__cause__))
        raise
    for kernels in instruction_sets():
        got = twin.on_native(circuit, inputs, LEVEL, SCALE, kernels=kernels, threads=threads)
        for mine, theirs in zip(got, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=60, deadline=None)
@given(circuit=CIRCUITS, draw=st.sampled_from(["random", "extreme"]))
def test_a_run_gives_the_same_words_on_every_instruction_set_and_number_of_threads(circuit, draw):
    twin = TWINS[draw]
    inputs = twin.ciphertexts(circuit.inputs, LEVEL)
    first, *others = [
        twin.on_native(circuit, inputs, LEVEL, SCALE, kernels=kernels, threads=threads, exact=False)
        for kernels in instruction_sets()
        for threads in (1, 2, 3)
    ]
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


# Limits ----------------------------------------------------------------------------------------


def largest_words(circuit: Circuit, twin: Twin) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = (np.array(PARAMETERS.data_primes, dtype=np.uint32)[:, None] - 1).repeat(PARAMETERS.ring_degree, axis=1)
    return [(rows, rows)] * circuit.inputs


@pytest.mark.parametrize("scalar", [True, False])
@pytest.mark.parametrize("terms", [11, 12, 13, 24, 25, 63, 64, 65, 128, 200])
def test_sums_of_any_length_at_the_largest_words(terms, scalar):
    # q - 1 times q - 1, as often: sums are folded every twelve products, and cut at MOST_OPERANDS.
    b = Builder(PARAMETERS.slots)
    x, y = b.input(), b.input()
    minus_one = np.array([-1.0]) if scalar else np.full(PARAMETERS.slots, -1.0)
    products = [b.with_constant(Kind.MULTIPLY_PLAIN, (x, y)[i % 2], minus_one * (1 + i % 3), 1.0) for i in range(terms)]
    plain = b.with_constant(Kind.ADD_PLAIN, b.total(products), minus_one)
    circuit, twin = b.circuit(b.op(Kind.ADD, plain, x)), TWINS["extreme"]
    inputs = largest_words(circuit, twin)
    expected = twin.on_seal(circuit, inputs, LEVEL, SCALE)
    for kernels in instruction_sets():
        np.testing.assert_array_equal(twin.on_native(circuit, inputs, LEVEL, SCALE, kernels=kernels), expected)
    lengths = [len(s.factors) + len(s.addends) + len(s.plains) for s in sums(circuit)]
    assert max(lengths) <= MOST_OPERANDS
    assert (len(lengths) == 1) == (terms + 2 <= MOST_OPERANDS)


def sums(circuit: Circuit) -> list[Sum]:
    return [i for i in native_plan(typed(circuit)).instructions if isinstance(i, Sum)]


@pytest.mark.parametrize("count", [2, MOST_ADDENDS, MOST_ADDENDS + 1, 3 * MOST_ADDENDS])
def test_sums_of_values_alone(count):
    b = Builder(PARAMETERS.slots)
    values = [b.input() for _ in range(3)]
    circuit = b.circuit(b.total([values[i % 3] for i in range(count)]))
    assert max(len(s.addends) for s in sums(circuit)) <= MOST_ADDENDS
    twin = TWINS["extreme"]
    inputs = largest_words(circuit, twin)
    expected = twin.on_seal(circuit, inputs, LEVEL, SCALE)
    for kernels in instruction_sets():
        np.testing.assert_array_equal(twin.on_native(circuit, inputs, LEVEL, SCALE, kernels=kernels), expected)


def test_rotations_of_one_input_share_digits_up_to_a_limit():
    steps = tuple(range(1, 2 * MOST_HOISTED + 3))
    parameters = tiny_parameters(128, (28, 26), 30)
    b = Builder(parameters.slots)
    x = b.input()
    circuit = b.circuit(*(b.op(Kind.ROTATE, x, step=step, hoist=0) for step in steps[:-1]))
    program = NativeProgram(TypedCircuit(circuit, parameters, 1, SCALE), NativeRing(parameters))
    groups = [i for i in program.plan.instructions if isinstance(i, Rotations)]
    assert [len(group.targets) for group in groups] == [MOST_HOISTED, MOST_HOISTED, 1]
    twin = Twin(parameters, steps)
    program.run(twin.ciphertexts(1, 1), twin.native_keys(program.ring, program))
    assert program.executed.rotations_hoisted == 2 * MOST_HOISTED


@settings(max_examples=200, deadline=None)
@given(circuit=CIRCUITS, exact=st.booleans())
def test_fused_or_not_a_circuit_needs_the_same_keys_at_the_same_levels(circuit, exact):
    plan = native_plan(typed(circuit), exact=exact)
    used = [(s, plan.residues[inputs_of(i)[0]].rows - 1) for i in plan.instructions for s in steps_of(i)]
    assert dict(sorted(used)) == plan.typed.key_levels  # of equal steps the highest level comes last


# Memory ----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(circuit=CIRCUITS, exact=st.booleans())
def test_what_is_alive_has_its_rows_to_itself(circuit, exact):
    plan = native_plan(typed(circuit), exact=exact)
    for number, alive in enumerate(alive_values(plan)):
        places = [(plan.arena.values[value], plan.residues[value].size) for value in alive]
        for instruction, start in zip(plan.waves[number], plan.arena.scratch[number], strict=True):
            places.append((start, rows_needed(instruction, plan.residues)[0]))
        taken = sorted(place for place in places if place[1])
        assert all(start + size <= following for (start, size), (following, _) in pairwise(taken))
        assert not taken or sum(taken[-1]) <= plan.arena.rows


def alive_values(plan: NativePlan) -> list[set[int]]:
    """In every wave: what is read or made in it, or was made before it and is read after it."""
    made = dict.fromkeys(plan.inputs, -1)
    read = {value: len(plan.waves) for value in plan.typed.circuit.outputs}
    for number, wave in enumerate(plan.waves):
        for instruction in wave:
            made |= dict.fromkeys(outputs_of(instruction), number)
            for value in inputs_of(instruction):
                assert made[value] < number, "an instruction reads what its own wave makes"
                read[value] = max(read.get(value, 0), number)
    return [
        {value for value, first in made.items() if first == number or first < number <= read.get(value, -2)}
        for number in range(len(plan.waves))
    ]


@settings(max_examples=50, deadline=None)
@given(circuit=CIRCUITS, threads=st.integers(1, 3))
def test_memory_is_what_was_planned(circuit, threads):
    program = NativeProgram(typed(circuit), NativeRing(PARAMETERS), NativeOptions(threads))
    assert program.run_bytes == program.plan.run_bytes(threads)
    assert program.constant_bytes == program.plan.constant_bytes
    assert all(len(wave) <= MOST_TOGETHER for wave in program.plan.waves)


def test_a_value_is_forgotten_after_its_last_use():
    b = Builder(PARAMETERS.slots)
    value = b.input()
    for _ in range(20):
        value = b.op(Kind.ROTATE, value, step=1)
    rows = LEVEL + 1
    arena = native_plan(typed(b.circuit(value))).arena
    assert arena.rows <= 3 * 2 * rows + rows + 2 * (rows + 1)

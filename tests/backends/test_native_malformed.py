"""Arrays that are no program: refused by ValueError, or run without touching memory that is not theirs.

`make sanitize` runs these with the address sanitizer, which ends the process at the first wrong access.
"""

import numpy as np
import pytest
from circuits import SCALE, Builder, every_operation, weighted_rotations
from hypothesis import given, settings
from hypothesis import strategies as st
from rings import tiny_parameters
from twin import Twin

from heinfer.backends.native import NativeProgram, NativeRing, native_plan
from heinfer.backends.native.instructions import rows_needed
from heinfer.backends.native.library import library
from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.typed import TypedCircuit

PARAMETERS = tiny_parameters(64, (30, 24, 28), 30)
LEVEL = PARAMETERS.top_level
TWIN = Twin(PARAMETERS, (1, 7))
RING = NativeRing(PARAMETERS)


CIRCUITS = {
    "every operation": every_operation(PARAMETERS.slots, LEVEL, TWIN.steps),
    "hoisting": weighted_rotations(PARAMETERS.slots, TWIN.steps, np.array([1.5])),
}


def typed(circuit: Circuit) -> TypedCircuit:
    return TypedCircuit(circuit, PARAMETERS, LEVEL, SCALE)


PLANS = {name: native_plan(typed(circuit)) for name, circuit in CIRCUITS.items()}
KEYS = {name: TWIN.native_keys(RING, NativeProgram(typed(circuit), RING)) for name, circuit in CIRCUITS.items()}

LARGEST_ARENA = max(plan.arena.rows for plan in PLANS.values())

numbers = st.one_of(
    st.integers(-2, 12),
    st.sampled_from(sorted({p.arena.rows - less for p in PLANS.values() for less in range(-2, 13)})),
    st.integers(0, LARGEST_ARENA),
    st.sampled_from([63, 64, 2**16, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, -(2**63)]),
)


@st.composite
def arrays(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """A few numbers replaced or moved, or numbers removed, repeated or put in."""
    values = array.tolist()
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(values) - 1)) if values else 0
        change = draw(st.sampled_from(["replace", "nudge", "remove", "insert", "repeat", "cut"]))
        if change == "replace":
            values[at : at + 1] = [draw(numbers)]
        elif change == "nudge" and values:
            values[at] = int(np.clip(values[at] + draw(st.sampled_from([-1, 1, 2, 7])), -(2**63), 2**63 - 1))
        elif change == "insert":
            values.insert(at, draw(numbers))
        else:
            length = draw(st.integers(1, 9))
            piece = values[at : at + length]
            values[at : at + length] = [] if change == "remove" else piece * 2
            if change == "cut":
                values = values[:at]
    return np.array(values, dtype=np.int64)


@st.composite
def shapes(draw: st.DrawFn, name: str) -> np.ndarray:
    """Values of which a few have another place or shape, at the end of the arena as often as elsewhere."""
    plan = PLANS[name]
    values, rows = plan.value_array, plan.arena.rows
    fields = (st.integers(rows - 12, rows + 2) | st.integers(0, rows), st.integers(0, 5), st.integers(1, 4), st.just(1))
    for _ in range(draw(st.integers(1, 3))):
        number, field = draw(st.integers(0, len(plan.residues) - 1)), draw(st.integers(0, 3))
        values[4 * number + field] = draw(fields[field])
    return values


def run(name: str, values: np.ndarray, code: np.ndarray, threads: int = 1, **changes: object) -> bool:
    """Whether the library takes a program and runs it; ValueError is the only error there may be."""
    plan = PLANS[name]
    ports = {"inputs": list(plan.inputs), "outputs": list(plan.typed.circuit.outputs), "arena_rows": plan.arena.rows}
    try:
        program = library().Program(RING.handle, values, code, *(ports | changes).values())
        vectors = [
            np.ascontiguousarray(plan.typed.circuit.constants[c.number], dtype=np.float64) for c in plan.constants
        ]
        program.load(vectors, [c.scale for c in plan.constants])
        inputs = [half for pair in TWIN.ciphertexts(2, LEVEL) for half in pair][: 2 * len(plan.inputs)]
        outputs = program.run(inputs, KEYS[name].handle, threads, library().Control())
    except ValueError:
        return False
    assert all(np.asarray(output).dtype == np.uint32 for output in outputs)
    return True


@settings(max_examples=1000, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(PLANS)))
def test_changed_code_is_refused_or_runs(data, name):
    plan = PLANS[name]
    run(name, plan.value_array, data.draw(arrays(plan.code_array)))


@settings(max_examples=500, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(PLANS)))
def test_changed_values_are_refused_or_used(data, name):
    plan = PLANS[name]
    run(name, data.draw(arrays(plan.value_array) | shapes(name)), plan.code_array)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(PLANS)),
    inputs=st.lists(st.integers(0, 100), max_size=3),
    outputs=st.lists(st.integers(0, 100), max_size=3),
    arena_rows=st.integers(0, 400),
    threads=st.integers(1, 3),
)
def test_other_inputs_outputs_and_arenas_are_refused_or_used(name, inputs, outputs, arena_rows, threads):
    plan = PLANS[name]
    for changes in ({"inputs": inputs}, {"outputs": outputs}, {"arena_rows": arena_rows}):
        run(name, plan.value_array, plan.code_array, threads, **changes)


@settings(max_examples=300, deadline=None)
@given(code=st.lists(numbers, max_size=40), values=st.lists(numbers, max_size=12))
def test_any_numbers_are_refused_or_run(code, values):
    run("hoisting", np.array(values, dtype=np.int64), np.array(code, dtype=np.int64))


@pytest.mark.parametrize("name", PLANS)
def test_every_single_number_is_looked_at(name):
    # Of every place in the code there is some number that the library refuses: nothing is taken unread.
    plan = PLANS[name]
    assert run(name, plan.value_array, plan.code_array)
    for array, place in [("code", i) for i in range(plan.code_array.size)] + [
        ("values", i) for i in range(plan.value_array.size) if i % 4 != 3
    ]:
        changed = {"code": plan.code_array.copy(), "values": plan.value_array.copy()}
        changed[array][place] = 2**40
        assert not run(name, changed["values"], changed["code"]), (array, place)


@pytest.mark.parametrize("name", PLANS)
def test_nothing_may_leave_the_arena_by_a_row(name):
    plan = PLANS[name]
    for number, of in enumerate(plan.residues):
        values = plan.value_array
        if number in plan.arena.values:
            values[4 * number] = plan.arena.rows - of.size
            assert run(name, values, plan.code_array)
            values[4 * number] += 1
            assert not run(name, values, plan.code_array)
    assert run(name, plan.value_array, plan.code_array, arena_rows=plan.arena.rows)
    assert not run(name, plan.value_array, plan.code_array, arena_rows=plan.arena.rows - 1)


def test_scratch_may_not_leave_the_arena_by_a_row():
    b = Builder(PARAMETERS.slots)
    x = b.input()
    plan = native_plan(typed(b.circuit(b.op(Kind.ROTATE, x, step=1))))
    (instruction,), rows = plan.instructions, plan.arena.rows
    code = plan.code_array
    for start, taken in ((rows - rows_needed(instruction, plan.residues)[0], True), (rows, False)):
        for beyond in (0, 1):
            code[2] = start + beyond
            arguments = (RING.handle, plan.value_array, code, [0], [1], rows)
            if taken and not beyond:
                library().Program(*arguments)
            else:
                with pytest.raises(ValueError, match="scratch"):
                    library().Program(*arguments)


@pytest.mark.parametrize("form", [1, PARAMETERS.slots])
@pytest.mark.parametrize(
    ("value", "scale"),
    [(1e307, 2.0**-1000), (2.0**60, 2.0**64), (np.nan, 1.0), (np.inf, 2.0**-1000), (1.0, -1.0), (0.0, np.inf)],
)
def test_constants_that_cannot_be_encoded_are_refused(form, value, scale):
    # The first one times its scale is small, but slots are summed up before they are scaled.
    b = Builder(PARAMETERS.slots)
    x = b.input()
    circuit = b.circuit(b.with_constant(Kind.MULTIPLY_PLAIN, x, np.full(form, 1.5), 2.0))
    plan = native_plan(typed(circuit))
    program = library().Program(
        RING.handle, plan.value_array, plan.code_array, plan.inputs, circuit.outputs, plan.arena.rows
    )
    with pytest.raises(ValueError, match="constant"):
        program.load([np.full(form, value)], [scale])


# The other arguments ---------------------------------------------------------------------------


def simple_program() -> NativeProgram:
    b = Builder(PARAMETERS.slots)
    x = b.input()
    return NativeProgram(typed(b.circuit(b.op(Kind.ROTATE, x, step=1))), RING)


@pytest.mark.parametrize("shape", [(2, 64), (4, 64), (3, 32), (3, 128), (0, 64)])
def test_inputs_of_another_shape_are_refused(shape):
    program = simple_program()
    rows = [np.zeros(shape, dtype=np.uint32)] * 2
    with pytest.raises(ValueError, match="shape"):
        program._handle.run(rows, TWIN.native_keys(RING, program).handle, 1, library().Control())


@pytest.mark.parametrize("threads", [0, 257, 2**40])
def test_numbers_of_threads_are_bounded(threads):
    program = simple_program()
    rows = [np.zeros((3, 64), dtype=np.uint32)] * 2
    with pytest.raises(ValueError, match="thread"):
        program._handle.run(rows, TWIN.native_keys(RING, program).handle, threads, library().Control())


def test_rows_that_are_not_contiguous_are_read_as_what_they_are():
    program = simple_program()
    keys, rows = TWIN.native_keys(RING, program).handle, list(TWIN.ciphertexts(1, LEVEL)[0])
    (expected,) = program._handle.run(rows, keys, 1, library().Control())
    (strided,) = program._handle.run([row.repeat(2, axis=1)[:, ::2] for row in rows], keys, 1, library().Control())
    np.testing.assert_array_equal(strided, expected)


def test_keys_of_another_ring_and_missing_keys_are_refused():
    program = simple_program()
    rows = [np.zeros((3, 64), dtype=np.uint32)] * 2
    other = NativeRing(PARAMETERS)
    with pytest.raises(ValueError, match="another ring"):
        program._handle.run(rows, TWIN.native_keys(other, program).handle, 1, library().Control())
    with pytest.raises(ValueError, match="missing"):
        program._handle.run(rows, library().Keys(RING.handle), 1, library().Control())


@pytest.mark.parametrize(
    ("step", "rows", "shape", "seeds"),
    [
        (32, 3, (3, 4, 64), 3),
        (2**40, 3, (3, 4, 64), 3),
        (1, 0, (3, 4, 64), 3),
        (1, 4, (3, 4, 64), 3),
        (1, 3, (2, 4, 64), 3),
        (1, 3, (3, 3, 64), 3),
        (1, 3, (3, 4, 32), 3),
        (1, 3, (3, 4, 64), 2),
        (1, 3, (3, 4, 64), 4),
    ],
)
def test_bad_keys_are_refused(step, rows, shape, seeds):
    keys = library().Keys(RING.handle)
    with pytest.raises(ValueError, match=r"key|step"):
        keys.add(step, rows, np.zeros(shape, dtype=np.uint32), bytes(64 * seeds))
    assert keys.bytes == 0


def test_a_program_without_its_constants_does_not_run():
    plan = PLANS["hoisting"]
    program = library().Program(
        RING.handle, plan.value_array, plan.code_array, plan.inputs, plan.typed.circuit.outputs, plan.arena.rows
    )
    rows = [np.zeros((3, 64), dtype=np.uint32)] * 2
    with pytest.raises(ValueError, match="not loaded"):
        program.run(rows, KEYS["hoisting"].handle, 1, library().Control())
    with pytest.raises(ValueError, match="constant"):
        program.load([], [])

"""Constants of the native backend: kept, mapped from a file, or encoded in every run, with the same words."""

import gc
import os
import stat
import subprocess
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_circuits import random_circuits
from rings import tiny_parameters
from samples import INPUT_SCALE, PARAMETERS, sample_circuit

from heinfer.backends.native import NativeKeys, NativeOptions, NativeProgram, NativeRing, native_plan
from heinfer.backends.native.constants_file import ConstantsFile
from heinfer.backends.native.instructions import Instruction, Kept, Sum
from heinfer.backends.native.library import library
from heinfer.backends.native.plan import plan_instructions
from heinfer.backends.native.residents import is_scalar
from heinfer.circuit.ir import Kind
from heinfer.circuit.typed import TypedCircuit
from heinfer.errors import SettingError

pytest.importorskip("heinfer_native")

from circuits import SCALE, Builder
from twin import Twin, instruction_sets

TINY = tiny_parameters(64, (30, 24, 28, 30), 30)
TWIN = Twin(TINY, (1, 2, 3))


def outputs(program: NativeProgram, circuit, twin: Twin = TWIN, level: int = TINY.top_level):
    keys = twin.native_keys(program.ring, program)
    return program.run(twin.ciphertexts(circuit.inputs, level), keys)


@settings(max_examples=60, deadline=None)
@given(random_circuits(TINY, TINY.top_level, (1, 2, 3)), st.floats(0, 1), st.integers(1, 2))
def test_a_limit_on_constants_changes_no_word_and_is_kept(circuit, share, threads):
    ring = NativeRing(TINY)
    typed = TypedCircuit(circuit, TINY, TINY.top_level, SCALE)
    whole = NativeProgram(typed, ring)
    most = int(share * whole.constant_bytes)
    limited = NativeProgram(typed, ring, NativeOptions(threads, most))
    least = native_plan(typed, most_constant_bytes=0).constant_bytes
    assert limited.constant_bytes == limited.plan.constant_bytes <= max(most, least)
    assert limited.run_bytes == limited.plan.run_bytes(threads)
    for mine, theirs in zip(outputs(limited, circuit), outputs(whole, circuit), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def program_of(folder=None, **options) -> NativeProgram:
    typed = TypedCircuit(sample_circuit(), PARAMETERS, 1, INPUT_SCALE)
    return NativeProgram(typed, NativeRing(PARAMETERS), NativeOptions(constants_folder=folder, **options))


def words(program: NativeProgram) -> np.ndarray:
    return np.array(program._handle.encoded)


SLOTS, COEFFICIENTS, RESIDUES = Kept


def kept_of(most: float, *sums: tuple[int, float]) -> list[Kept]:
    """What is kept of products of a value with `rows` rows by a vector whose mean size is given, at scale 1."""
    b = Builder(TINY.slots)
    outputs = []
    for rows, size in sums:
        x = b.input()
        for _ in range(TINY.top_level + 1 - rows):
            x = b.op(Kind.DROP_LEVEL, x)
        outputs.append(b.with_constant(Kind.MULTIPLY_PLAIN, x, np.full(TINY.slots, size), 1.0))
    plan = native_plan(TypedCircuit(b.circuit(*outputs), TINY, TINY.top_level, SCALE), most_constant_bytes=most)
    by_rows = {plan.residues[i.out].rows: i.kept for i in plan.instructions if isinstance(i, Sum) and i.constants}
    return [by_rows[rows] for rows, _ in sums]


BORDER = 2.0**31
"""Coefficients from -BORDER on and below BORDER fit 32 bits with their sign."""
ROW = 4 * TINY.ring_degree


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (np.inf, [RESIDUES, RESIDUES, RESIDUES, RESIDUES]),
        (10 * ROW, [RESIDUES, RESIDUES, RESIDUES, RESIDUES]),
        (10 * ROW - 1, [COEFFICIENTS, RESIDUES, RESIDUES, RESIDUES]),
        (7 * ROW - 1, [COEFFICIENTS, COEFFICIENTS, RESIDUES, RESIDUES]),  # slots become residues before all others
        (6 * ROW - 1, [COEFFICIENTS, RESIDUES, SLOTS, RESIDUES]),  # for which there is no room: the next that has some
        (0, [COEFFICIENTS, COEFFICIENTS, SLOTS, RESIDUES]),  # of one row residues are no more
    ],
)
def test_what_saves_most_for_a_byte_is_kept(most, kept):
    assert kept_of(most, (4, 1.0), (2, 1.0), (3, 2.0**31), (1, 1.0)) == kept


def test_a_scalar_is_kept_whatever_the_limit():
    sums = [i for i in program_of(most_constant_bytes=0).plan.instructions if isinstance(i, Sum) and i.constants]
    assert [instruction.kept for instruction in sums] == [COEFFICIENTS, RESIDUES]


def outputs_keeping(kept: Kept, typed: TypedCircuit, kernels: str, threads: int) -> list[np.ndarray]:
    """Outputs on one input where all sums of vectors keep the same, whatever their sizes are."""

    def changed(instruction: Instruction) -> Instruction:
        if not isinstance(instruction, Sum) or is_scalar(instruction, typed.circuit):
            return instruction
        return replace(instruction, kept=kept)

    plan = native_plan(typed)
    plan = plan_instructions(typed, plan.residues, [changed(i) for i in plan.instructions])
    ring = NativeRing(typed.parameters, kernels)
    ports = plan.inputs, typed.circuit.outputs, plan.arena.rows
    program = library().Program(ring.handle, plan.value_array, plan.code_array, *ports)
    program.load(
        [typed.circuit.constants[c.number] for c in plan.constants], [c.scale for c in plan.constants], threads
    )
    assert program.run_bytes(threads) == plan.run_bytes(threads)
    assert program.constant_bytes == plan.constant_bytes
    keys, control = NativeKeys(ring, {}), library().Control()
    return program.run(list(TWIN.ciphertexts(1, typed.input_level)[0]), keys.handle, threads, control)


@settings(max_examples=200, deadline=None)
@given(
    terms=st.lists(
        st.tuples(st.integers(0, 2**32), st.floats(-40, 30.99), st.sampled_from("mix")), min_size=1, max_size=20
    ),
    level=st.integers(0, TINY.top_level),
    scale_bits=st.integers(0, 12),
    kernels=st.sampled_from(instruction_sets()),
    threads=st.integers(1, 2),
)
def test_what_is_kept_changes_no_word(terms, level, scale_bits, kernels, threads):
    """Sums of products of two and of three polynomials and of constants, with coefficients of up to 31 bits."""
    b = Builder(TINY.slots)
    x = b.input()
    square, scale, total = b.op(Kind.MULTIPLY, x, x), 2.0**scale_bits, -1
    for seed, bits, kind in terms:
        rng = np.random.default_rng(seed)
        slots = rng.choice([-1.0, 1.0]) if seed % 3 else rng.uniform(-1, 1, TINY.slots)
        slots = np.atleast_1d(slots) if seed % 5 == 0 else np.broadcast_to(slots, TINY.slots)
        slots = np.ascontiguousarray(slots) * 2.0**bits / scale / SCALE
        if kind == "x" and total >= 0:
            total = b.with_constant(Kind.ADD_PLAIN, total, slots / SCALE)
            continue
        factor, by = (square, scale) if kind == "m" else (x, scale * SCALE)
        product = b.with_constant(Kind.MULTIPLY_PLAIN, factor, slots, by)
        total = product if total < 0 else b.op(Kind.ADD, total, product)
    typed = TypedCircuit(b.circuit(total), TINY, level, SCALE)
    expected = outputs_keeping(RESIDUES, typed, "portable", 1)
    for kept in Kept:
        for mine, theirs in zip(outputs_keeping(kept, typed, kernels, threads), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kernels", instruction_sets())
@pytest.mark.parametrize("n", [64, 16384])
@pytest.mark.parametrize("bits", [(30, 24, 28), (20, 27, 26)])  # some whose transforms reduce, and some that do not
def test_coefficients_of_32_bits_are_reduced_right(kernels, n, bits):
    parameters = tiny_parameters(n, bits, 30)
    rng, primes = np.random.default_rng(n), np.array(parameters.primes, dtype=np.int64)[:, None]
    ring = NativeRing(parameters, kernels).handle
    coefficients = rng.integers(-(2**31), 2**31, n)
    q = np.resize(primes, n)
    for at, border in enumerate((-(2**31), 2**31 - 1, -1, 0, q, -q, q - 1, 2 * q, 2**30)):
        coefficients[at::17] = border if np.isscalar(border) else border[at::17]
    mine = library().reduced(ring, coefficients.astype(np.int32), list(range(4)))
    np.testing.assert_array_equal(mine, ring.forward((coefficients % primes).astype(np.uint32), list(range(4))))


@pytest.mark.parametrize(
    ("value", "fits"), [(BORDER - 1, True), (BORDER, False), (-BORDER, True), (-BORDER - 1, False)]
)
def test_coefficients_of_33_bits_are_refused(value, fits):
    """Equal slots are one coefficient, the constant one."""
    b = Builder(TINY.slots)
    circuit = b.circuit(b.with_constant(Kind.MULTIPLY_PLAIN, b.input(), np.full(TINY.slots, value), 1.0))
    typed = TypedCircuit(circuit, TINY, TINY.top_level, SCALE)
    with nullcontext() if fits else pytest.raises(ValueError, match="32 bits"):
        mine = outputs_keeping(COEFFICIENTS, typed, "", 1)
        np.testing.assert_array_equal(mine, outputs_keeping(RESIDUES, typed, "", 1))
    assert native_plan(typed, most_constant_bytes=0).constant_bytes == ROW
    (kept,) = (i.kept for i in native_plan(typed, most_constant_bytes=0).instructions if isinstance(i, Sum))
    assert kept is SLOTS  # near the border the bound is not exact: slots serve


@pytest.mark.parametrize("way", ["another user's", "writable by all", "a link", "a pipe"])
def test_what_somebody_else_may_have_written_is_not_taken(tmp_path, way):
    """A whole file, of the right program and with its own digest, of other words: answers would be silently wrong."""
    first = program_of(tmp_path)
    (path,) = tmp_path.iterdir()
    identity = native_plan(TypedCircuit(sample_circuit(), PARAMETERS, 1, INPUT_SCALE)).identity()
    file, forged = ConstantsFile(tmp_path, identity), words(first) ^ 1
    file.save(forged)
    assert file.open(forged.size) is not None
    if way == "another user's":
        if os.geteuid() != 0:
            pytest.skip("needs root, to make a file of another user's")
        os.chown(path, 65534, 65534)
    elif way == "writable by all":
        path.chmod(0o666)
    else:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to("elsewhere") if way == "a link" else os.mkfifo(path)
    assert file.open(forged.size) is None
    np.testing.assert_array_equal(words(program_of(tmp_path)), words(first))
    assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0
    assert file.open(forged.size) is not None


def test_a_file_is_written_once_and_mapped_from_then_on(tmp_path):
    first = program_of(tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat()
    second = program_of(tmp_path)
    assert file.stat().st_mtime_ns == written.st_mtime_ns
    np.testing.assert_array_equal(words(second), words(program_of()))
    np.testing.assert_array_equal(words(first), words(second))
    twin = Twin(PARAMETERS, (3, 5))
    for mine, theirs in zip(
        outputs(second, sample_circuit(), twin, 1), outputs(first, sample_circuit(), twin, 1), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_who_does_not_save_maps_what_is_there_and_writes_nothing(tmp_path):
    expected = words(program_of(tmp_path, saves_constants=False))
    assert not list(tmp_path.iterdir())
    program_of(tmp_path)
    (file,) = tmp_path.iterdir()
    np.testing.assert_array_equal(words(program_of(tmp_path, saves_constants=False)), expected)
    file.write_bytes(bad := file.read_bytes()[:-1])
    np.testing.assert_array_equal(words(program_of(tmp_path, saves_constants=False)), expected)
    assert file.read_bytes() == bad


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b"x" + b[1:]])
def test_a_damaged_file_is_written_anew(tmp_path, damage):
    expected = words(program_of(tmp_path))
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    file.write_bytes(damage(good))
    np.testing.assert_array_equal(words(program_of(tmp_path)), expected)
    assert file.read_bytes() == good


def test_programs_of_other_constants_or_limits_do_not_share_a_file(tmp_path):
    program_of(tmp_path)
    program_of(tmp_path, most_constant_bytes=0)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(SettingError, match="nowhere"):
        program_of(tmp_path / "nowhere")


def test_slots_live_no_longer_than_the_caller_wants_and_may_not_change_what_is_loaded():
    circuit, expected = sample_circuit(), [outputs_of_sample(program_of(most_constant_bytes=0))]
    seen = [weakref.ref(constant) for constant in circuit.constants if constant.size > 1]
    options = NativeOptions(most_constant_bytes=0)
    program = NativeProgram(TypedCircuit(circuit, PARAMETERS, 1, INPUT_SCALE), NativeRing(PARAMETERS), options)
    del circuit
    gc.collect()
    assert seen
    assert [ref() for ref in seen] == [None] * len(seen)
    np.testing.assert_array_equal([outputs_of_sample(program)], expected)


def outputs_of_sample(program: NativeProgram) -> np.ndarray:
    return np.concatenate([out.reshape(-1) for out in outputs(program, sample_circuit(), Twin(PARAMETERS, (3, 5)), 1)])


def test_a_file_of_another_length_is_not_opened(tmp_path):
    file = ConstantsFile(tmp_path, bytes(32))
    file.save(np.arange(16, dtype=np.uint32))
    assert file.open(15) is None
    found = file.open(16)
    assert found is not None
    np.testing.assert_array_equal(found, np.arange(16))


def test_the_mapping_outlives_everything_but_the_program(tmp_path):
    script = (
        "import gc, sys; sys.path[:0] = ['tests/backends', 'tests/support']; from pathlib import Path; "
        "from test_native_constants import program_of, words; folder = Path(sys.argv[1]); program_of(folder); "
        "program = program_of(folder); gc.collect(); [f.unlink() for f in folder.iterdir()]; "
        "assert words(program).any()"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)

"""Constants of the native backend: kept, mapped from a file, or encoded in every run, with the same words."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_circuits import random_circuits
from rings import tiny_parameters
from samples import INPUT_SCALE, PARAMETERS, sample_circuit

from heinfer.backends.native import NativeOptions, NativeProgram, NativeRing, native_plan
from heinfer.backends.native.constants_file import ConstantsFile
from heinfer.backends.native.instructions import Sum
from heinfer.circuit.typed import TypedCircuit
from heinfer.errors import SettingError

pytest.importorskip("heinfer_native")

from circuits import SCALE
from twin import Twin

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
    scalars = native_plan(typed, most_constant_bytes=0).constant_bytes
    assert limited.constant_bytes == limited.plan.constant_bytes <= most + scalars
    assert limited.run_bytes == limited.plan.run_bytes(threads)
    for mine, theirs in zip(outputs(limited, circuit), outputs(whole, circuit), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def program_of(folder=None, **options) -> NativeProgram:
    typed = TypedCircuit(sample_circuit(), PARAMETERS, 1, INPUT_SCALE)
    return NativeProgram(typed, NativeRing(PARAMETERS), NativeOptions(constants_folder=folder, **options))


def words(program: NativeProgram) -> np.ndarray:
    return np.array(program._handle.encoded)


def test_the_dearest_to_encode_again_are_kept_first():
    kept = [i for i in program_of(most_constant_bytes=0).plan.instructions if isinstance(i, Sum) and i.constants]
    assert [instruction.resident for instruction in kept] == [False, True]  # the scalar bias costs nothing


@pytest.mark.parametrize("way", ["another user's", "writable by all", "a link", "a pipe"])
def test_what_somebody_else_may_have_written_is_not_taken(tmp_path, way):
    """A whole file, of the right program and with its own digest, of other words: answers would be silently wrong."""
    first = program_of(tmp_path)
    (path,) = tmp_path.iterdir()
    file, forged = ConstantsFile(tmp_path, first.plan.identity()), words(first) ^ 1
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

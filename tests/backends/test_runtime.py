"""The same frames on every backend, and which backend runs."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from installed import INSTALLED
from owner import Owner, binding_of
from tiny_model import cleartext_scores, tiny_bundle

from heinfer.backends import Runtime, choice, choose_backend, open_runtime
from heinfer.circuit.counts import count_circuit
from heinfer.errors import BackendError, MissingKeyError, SettingError
from heinfer.formats.frames import decode_ciphertexts, decode_keys, encode_ciphertexts
from heinfer.formats.seal_reader import read_key

MODEL = tiny_bundle()
PARAMETERS = MODEL.manifest.to_parameters()
INPUT = MODEL.manifest.input
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


@pytest.fixture(params=INSTALLED)
def runtime(request) -> Runtime:
    return open_runtime(MODEL.typed, backend=request.param)


def keys_of(owner: Owner):
    return decode_keys(owner.keys, PARAMETERS, MODEL.manifest.keys_binding, MODEL.manifest.keys.levels)


def inputs_of(owner: Owner):
    frame = owner.inputs(IMAGE)
    return decode_ciphertexts(
        frame, PARAMETERS, binding_of(frame), count=1, level=INPUT.level, scale=INPUT.scale, seeded=True
    )


def test_a_run_is_what_was_counted_and_right(runtime, owner):
    keys = runtime.load_keys(keys_of(owner))
    outputs = runtime.run(runtime.load_inputs(inputs_of(owner)), keys)
    frames = runtime.save_outputs(outputs)
    assert [(frame.level, frame.scale) for frame in frames] == [
        (MODEL.manifest.output.level, MODEL.manifest.output.scale)
    ]
    assert owner.scores(encode_ciphertexts(PARAMETERS, bytes(32), frames)) == pytest.approx(
        cleartext_scores(IMAGE), abs=0.05
    )
    planned, executed = count_circuit(MODEL.circuit), runtime.executed
    assert (executed.key_switches, executed.hma) == (planned.key_switches, planned.hma)


def test_what_a_key_was_trimmed_of_changes_no_word(runtime, owner):
    """A backend that read anything above a key's level would read zeros, or nothing."""
    levels = MODEL.manifest.keys.levels
    assert min(levels.values()) < max(levels.values()) <= PARAMETERS.top_level
    whole = [
        read_key(owner.secret.galois_key(step) if step else owner.secret.relinearization_key(), PARAMETERS, step)
        for step in levels
    ]
    trimmed = [key.trimmed(levels[key.step]) for key in whole]
    assert sum(key.digits.size for key in trimmed) < sum(key.digits.size for key in whole)
    inputs = inputs_of(owner)
    ((x,), (y,)) = (
        runtime.save_outputs(runtime.run(runtime.load_inputs(inputs), runtime.load_keys(keys)))
        for keys in (whole, trimmed)
    )
    assert np.array_equal(x.c0, y.c0)
    assert np.array_equal(x.c1, y.c1)


def test_a_key_for_lower_levels_only_is_missing(owner):
    if "native" not in INSTALLED:
        pytest.skip("heinfer-native is not built")
    runtime = open_runtime(MODEL.typed, backend="native")
    with pytest.raises(MissingKeyError, match="step 0 is for use below level 2 only"):
        runtime.load_keys([key.trimmed(0) for key in keys_of(owner)])


def test_a_ciphertext_may_come_with_both_halves(runtime, owner):
    keys = runtime.load_keys(keys_of(owner))
    (fresh,) = runtime.save_outputs(runtime.run(runtime.load_inputs(inputs_of(owner)), keys))
    assert fresh.c1 is not None
    runtime.load_inputs([fresh])


def test_a_missing_key_is_named(runtime, owner):
    keys = runtime.load_keys([key for key in keys_of(owner) if key.step != 8])
    with pytest.raises(MissingKeyError, match="rotation by 8"):
        runtime.run(runtime.load_inputs(inputs_of(owner)), keys)
    keys = runtime.load_keys([key for key in keys_of(owner) if key.step])
    with pytest.raises(MissingKeyError, match="relinearization"):
        runtime.run(runtime.load_inputs(inputs_of(owner)), keys)


def test_a_missing_input_is_refused(runtime, owner):
    with pytest.raises(BackendError, match="takes 1 ciphertexts, got 0"):
        runtime.run([], runtime.load_keys(keys_of(owner)))


def test_the_fastest_backend_that_is_installed_is_chosen(monkeypatch):
    assert choose_backend() == INSTALLED[0]
    assert choose_backend("tenseal") == "tenseal"
    monkeypatch.setattr(choice, "native_problem", lambda: "heinfer-native is not installed")
    assert choose_backend() == "tenseal"
    with pytest.raises(SettingError, match=r"native backend is wanted, but .* not installed.*pip install"):
        choose_backend("native")
    with pytest.raises(SettingError, match=r"no backend 'cuda'; there are native, tenseal"):
        choose_backend("cuda")


STALE = {
    "of before there were formats": ("", "is of another heinfer: format 0 instead of"),
    "of another format": ("FORMAT = -1", "is of another heinfer: format -1 instead of"),
    "that cannot be loaded": ("raise ImportError('of another Python')", r"cannot be loaded \(of another Python\)"),
}


@pytest.mark.parametrize("build", STALE)
def test_a_build_for_another_heinfer_does_not_serve(build, tmp_path):
    text, reason = STALE[build]
    (tmp_path / "heinfer_native.py").write_text(text)
    script = "from heinfer.backends import *; print(choose_backend(), without_native()); choose_backend('native')"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert re.fullmatch(f"tenseal heinfer-native {reason}.*: SEAL evaluates.*pip install.*\n", done.stdout)
    assert re.search(f"SettingError: the native backend is wanted, but heinfer-native {reason}", done.stderr)

"""The same frames on every backend, and which backend runs."""

import numpy as np
import pytest
from installed import INSTALLED
from owner import Owner
from tiny_model import cleartext_scores, tiny_bundle

from heinfer.circuit.counts import count_circuit
from heinfer.errors import BackendError, MissingKeyError, SettingError
from heinfer.formats.frames import decode_ciphertexts, decode_keys, encode_ciphertexts
from heinfer.runtime import Runtime, choice, choose_backend, open_runtime

MODEL = tiny_bundle()
PARAMETERS = MODEL.manifest.to_parameters()
INPUT = MODEL.manifest.input
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


@pytest.fixture(params=INSTALLED)
def runtime(request) -> Runtime:
    return open_runtime(MODEL.circuit, PARAMETERS, INPUT.level, INPUT.scale, backend=request.param)


def keys_of(owner: Owner):
    listed = MODEL.manifest.keys
    return decode_keys(owner.keys, PARAMETERS, steps=listed.steps, relinearization=listed.relinearization)


def inputs_of(owner: Owner):
    frame = owner.inputs(IMAGE)
    return decode_ciphertexts(frame, PARAMETERS, count=1, level=INPUT.level, scale=INPUT.scale, seeded=True)


def test_a_run_is_what_was_counted_and_right(runtime, owner):
    keys = runtime.load_keys(keys_of(owner))
    outputs = runtime.run(runtime.load_inputs(inputs_of(owner)), keys)
    frames = runtime.save_outputs(outputs)
    assert [(frame.level, frame.scale) for frame in frames] == [
        (MODEL.manifest.output.level, MODEL.manifest.output.scale)
    ]
    assert owner.scores(encode_ciphertexts(PARAMETERS, frames)) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)
    planned, executed = count_circuit(MODEL.circuit), runtime.executed
    assert (executed.key_switches, executed.hma) == (planned.key_switches, planned.hma)


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
    monkeypatch.setattr(choice, "is_installed", lambda: False)
    assert choose_backend() == "tenseal"
    with pytest.raises(SettingError, match=r"native backend is wanted.*pip install"):
        choose_backend("native")
    with pytest.raises(SettingError, match=r"no backend 'cuda'; there are native, tenseal"):
        choose_backend("cuda")

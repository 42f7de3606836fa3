"""The memory that models take in a worker is known, and bounded, before a worker takes it."""

import os
import re
from dataclasses import replace

import numpy as np
import pytest
from installed import INSTALLED
from owner import Owner
from samples import INPUT_SCALE, PARAMETERS, sample_circuit
from tiny_model import tiny_bundle

from heinfer.backends import NativeOptions, open_runtime, runtime_memory
from heinfer.backends.memory import Memory, memory_of
from heinfer.backends.native import NativeProgram, NativeRing
from heinfer.backends.seal.program import TensealProgram
from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.seal import Ring
from heinfer.errors import SettingError
from heinfer.formats import bundle as bundles
from heinfer.formats.bundle import Bundle
from heinfer.formats.frames import decode_keys
from heinfer_server import Settings, create_app
from heinfer_server.memory.of_models import model_options
from heinfer_server.memory.total import available
from heinfer_server.models import ServedModel, load_models

ROW = 8 * PARAMETERS.ring_degree  # bytes of one polynomial at one prime


def memory(circuit: Circuit) -> Memory:
    return memory_of(TypedCircuit(circuit, PARAMETERS, 1, INPUT_SCALE))


def test_plaintexts_take_what_was_predicted():
    circuit = sample_circuit()
    encoded = TensealProgram(TypedCircuit(circuit, PARAMETERS, 1, INPUT_SCALE), Ring.secure(PARAMETERS))._plaintexts
    taken = sum(8 * plaintext.coeff_count() for plaintext in {id(p): p for p in encoded.values()}.values())
    assert memory(circuit).plaintexts == taken == 2 * 2 * ROW


def test_a_constant_counts_once_for_each_level_and_scale():
    product = Op(Kind.MULTIPLY_PLAIN, (0,), constant=0, scale=4.0)
    ops = [Op(Kind.INPUT, input=0), product, product, replace(product, scale=8.0)]
    ops += [Op(Kind.RESCALE, (1,)), replace(product, args=(4,))]
    circuit = Circuit(PARAMETERS.slots, tuple(ops), (5,), (np.array([2.0]),))
    assert memory(circuit).plaintexts == (2 + 2 + 1) * ROW  # two at two primes, one at one; a scalar is no smaller


def test_ciphertexts_count_as_long_as_they_are_used():
    ops = [Op(Kind.INPUT, input=0)]
    ops += [Op(Kind.ROTATE, (number,), step=1) for number in range(10)]  # one after the other
    chain = Circuit(PARAMETERS.slots, tuple(ops), (10,))
    assert memory(chain).ciphertexts == 3 * 2 * 2 * ROW  # the input, an argument and a result
    ops = [Op(Kind.INPUT, input=0)]
    ops += [Op(Kind.ROTATE, (0,), step=1 + number) for number in range(10)]  # all kept
    fan = Circuit(PARAMETERS.slots, tuple(ops), tuple(range(1, 11)))
    assert memory(fan).ciphertexts == 11 * 2 * 2 * ROW
    ops = [Op(Kind.INPUT, input=0), Op(Kind.MULTIPLY, (0, 0))]
    product = Circuit(PARAMETERS.slots, tuple(ops), (1,))
    assert memory(product).ciphertexts == (2 + 3) * 2 * ROW


def served(tmp_path, models: list[Bundle], **settings: object) -> None:
    paths = [tmp_path / model.manifest.name for model in models]
    for model, path in zip(models, paths, strict=True):
        bundles.save(model, path)
    chosen = Settings(bundles=tuple(paths), **{"backend": "tenseal", "no_auth": True, **settings})
    create_app(chosen, load_models(chosen.bundles))


def test_models_that_do_not_fit_into_a_worker_are_refused_by_name(tmp_path):
    one, two = tiny_bundle("one"), tiny_bundle("two")
    need = memory_of(one.typed)
    alone, together = need.plaintexts + need.ciphertexts, 2 * need.plaintexts + need.ciphertexts
    served(tmp_path, [one], model_memory=alone)
    served(tmp_path, [one, two], model_memory=together)
    with pytest.raises(SettingError, match=rf"one 1 needs {need.plaintexts} .* take {alone - 1}; .*_MODEL_MEMORY"):
        served(tmp_path, [one], model_memory=alone - 1)
    with pytest.raises(
        SettingError, match=rf"two 1 needs .* {together} with the models before it, and .* {together - 1}"
    ):
        served(tmp_path, [one, two], model_memory=together - 1)


def test_a_service_that_may_take_more_than_there_is_is_refused_with_the_numbers(tmp_path):
    with pytest.raises(SettingError, match=r"stored keys 1\.00 by HEINFER_SERVER_KEY_MEMORY") as caught:
        served(tmp_path, [tiny_bundle()], memory=1 << 30)
    total = int(re.search(r"may take (\d+)", str(caught.value))[1])
    served(tmp_path, [tiny_bundle()], memory=total)
    with pytest.raises(SettingError, match=rf"there are [\d.]+ \({total - 1} bytes\)"):
        served(tmp_path, [tiny_bundle()], memory=total - 1)
    assert 0 < available() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.skipif("native" not in INSTALLED, reason="the native backend is not installed")
def test_loaded_keys_take_what_was_predicted():
    owner, model = Owner(tiny_bundle()), ServedModel.of(tiny_bundle())
    manifest = model.bundle.manifest
    runtime = open_runtime(model.bundle.typed, backend="native")
    keys = runtime.load_keys(decode_keys(owner.keys, model.parameters, manifest.keys_binding, manifest.keys.levels))
    assert keys.bytes == pytest.approx(model.loaded_key_bytes("native"), rel=0.01)
    assert model.loaded_key_bytes("tenseal") == 3 * 2 * 3 * 4 * 8 * 4096


def test_a_small_file_that_would_fill_the_memory_is_refused(tmp_path):
    """One constant at thousands of scales, in a chain: all of it is used, and a few bytes each in the file."""
    model = tiny_bundle()
    *before, product, _ = model.circuit.ops
    last = len(before) - 1
    products = [
        replace(product, args=(last + number,), scale=product.scale if number == 0 else 1 + number / 1e9)
        for number in range(10_000)
    ]
    ops = (*before, *products, Op(Kind.RESCALE, (last + len(products),)))
    hostile = replace(
        model, circuit=replace(model.circuit, ops=ops, outputs=(len(ops) - 1,)), bounds=(16.0,) * len(ops)
    )
    output = model.manifest.output.model_copy(update={"scale": hostile.typed.output_types[0].scale})
    manifest = model.manifest.model_copy(update={"outputs": (output,)})
    hostile = replace(hostile, manifest=manifest)
    with pytest.raises(SettingError, match="tiny 1 needs 65"):  # 0.65 GB
        served(tmp_path, [hostile], model_memory=1 << 29)
    assert (tmp_path / "tiny").stat().st_size < 1 << 20


@pytest.mark.skipif("native" not in INSTALLED, reason="the native backend is not installed")
def test_the_native_backend_takes_what_was_predicted(tmp_path):
    model, options = tiny_bundle(), NativeOptions(threads=2)
    need = runtime_memory(model.typed, backend="native", options=options)
    program = NativeProgram(model.typed, NativeRing.secure(model.typed.parameters), options)
    assert need == Memory(program.constant_bytes, program.run_bytes)
    served(tmp_path, [model], model_memory=need.plaintexts + need.ciphertexts, backend="native", threads=2)


@pytest.mark.skipif("native" not in INSTALLED, reason="the native backend is not installed")
def test_what_does_not_fit_is_made_in_every_evaluation_and_what_cannot_run_is_refused(tmp_path):
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        bundles.save(tiny_bundle(path.name), path)
    models, options = load_models(paths), NativeOptions()
    one = models.current("one").memory("native", options)
    most = 2 * one.plaintexts + one.ciphertexts
    assert model_options(models, "native", options, most) == {model.digest: options for model in models}
    chosen = model_options(models, "native", options, most - 1)
    needs = [model.memory("native", chosen[model.digest]) for model in models]
    assert sum(need.plaintexts for need in needs) + max(need.ciphertexts for need in needs) < most
    assert [need.plaintexts for need in needs] == [4 * 4096] * 2  # coefficients, instead of residues of two rows
    assert one.plaintexts == 2 * 4 * 4096
    least = 2 * 4 * 4096 + max(need.ciphertexts for need in needs)
    assert model_options(models, "native", options, least)
    with pytest.raises(SettingError, match=rf"two 1 needs 16384 bytes .* may take {least - 1}; .*_MODEL_MEMORY"):
        model_options(models, "native", options, least - 1)

"""Whole networks on real ciphertexts: SEAL's words, and where digits are shared, scores within the predicted noise."""

import numpy as np
import pytest
from native_model import NativeModel, assert_as_noisy_as_predicted

from heinfer.backends.native.instructions import Division, Product, Relinearization, Rotations, Sum
from heinfer.circuit.counts import count_circuit
from heinfer.formats import bundle
from heinfer.zoo import bundle_path, digits

IMAGE = digits().images[3]


@pytest.fixture(scope="module")
def model() -> NativeModel:
    return NativeModel(bundle.load(bundle_path("mnist-ffconv")))


def test_an_exact_run_of_a_network_gives_seals_words(model):
    frames = model.encrypt(IMAGE)
    expected = model.on_seal(frames, same_plaintexts=True)
    for threads in (1, 2):
        program = model.program(threads, exact=True)
        np.testing.assert_array_equal(program.run(model.words(frames), model.native_keys(program)), expected)
        assert program.executed.rotations_hoisted == 0


def test_scores_are_within_the_predicted_noise_on_either_backend(model):
    frames, expected = model.encrypt(IMAGE), model.simulate(IMAGE)
    program = model.program()
    native = model.decrypt(program.run(model.words(frames), model.native_keys(program)))
    seal = model.decrypt(model.on_seal(frames, same_plaintexts=False))
    assert_as_noisy_as_predicted(native - expected.outputs[0], expected.deviation)
    assert_as_noisy_as_predicted(seal - expected.outputs[0], expected.deviation)
    # What the backends do not share is the noise of the digits that are shared, and the rounding of plaintexts.
    assert_as_noisy_as_predicted(native - seal, np.sqrt(2) * expected.deviation)
    assert not np.array_equal(native, seal)


def test_what_is_executed_is_what_is_planned(model):
    counts = count_circuit(model.bundle.circuit)
    program = model.program()
    program.run(model.words(model.encrypt(IMAGE)), model.native_keys(program))
    assert program.executed == counts
    instructions = list(program.plan.instructions)
    rotations = sum(len(i.targets) for i in instructions if isinstance(i, Rotations))
    squares = [i for i in instructions if isinstance(i, Product | Relinearization)]
    sums = [i for i in instructions if isinstance(i, Sum)]
    assert rotations == counts.rotations
    assert len(squares) == counts.ct_ct_mults
    assert sum(len(s.factors) for s in sums) == counts.hma
    assert sum(len(s.factors) + len(s.plains) for s in sums) == counts.plaintexts
    assert sum(isinstance(i, Division) for i in instructions) == counts.rescales
    assert sorted(program.typed.key_levels) == [0, *model.bundle.circuit.steps()]


def test_keys_hold_no_prime_that_no_operation_needs(model):
    program = model.program()
    n = model.codec.parameters.ring_degree
    rows = [level + 1 for level in program.typed.key_levels.values()]
    assert model.native_keys(program).bytes == sum(2 * r * (r + 1) * n * 4 for r in rows)
    assert min(rows) < max(rows)

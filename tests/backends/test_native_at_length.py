"""The native evaluator where it takes long: the large rings, all shipped networks, and thousands of runs."""

from pathlib import Path

import numpy as np
import pytest
from circuits import SCALE, every_operation
from native_model import NativeModel, assert_as_noisy_as_predicted
from rings import tiny_parameters
from twin import Twin, instruction_sets

from heinfer.backends.native import NativeOptions, NativeProgram, NativeRing
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.formats import bundle
from heinfer.zoo import bundle_path, digits

pytestmark = pytest.mark.slow

CHAINS = {
    "16384": Parameters.create(16384, [30, *[28] * 12], 30),
    "16384, uneven": Parameters.create(16384, [30, 21, 29, 24, 30, 22, 30, 28, 27, 30, 26], 30),
    "32768": Parameters.create(32768, [30] * 14, 30),
}


@pytest.mark.parametrize("draw", ["random", "extreme"])
@pytest.mark.parametrize("chain", CHAINS)
def test_every_operation_at_every_level_of_the_large_rings(chain, draw):
    parameters = CHAINS[chain]
    twin = Twin(parameters, (parameters.slots // 3,), draw)
    for level in range(parameters.top_level + 1):
        twin.assert_equal(every_operation(parameters.slots, level, twin.steps), level, SCALE)


@pytest.mark.parametrize("kernels", instruction_sets())
@pytest.mark.parametrize("chain", CHAINS)
def test_instruction_sets_agree_with_seal_in_the_large_rings(chain, kernels):
    parameters = CHAINS[chain]
    twin = Twin(parameters, (1,))
    circuit = every_operation(parameters.slots, parameters.top_level, twin.steps)
    twin.assert_equal(circuit, parameters.top_level, SCALE, [kernels])


@pytest.mark.parametrize("name", ["mnist-ffconv", "mnist-plain", "lola-mnist", "lenet5-mnist"])
def test_shipped_networks_give_seals_words_and_scores_within_the_predicted_noise(name):
    model = NativeModel(bundle.load(bundle_path(name)))
    image = digits().images[7]
    frames = model.encrypt(image)
    expected = model.on_seal(frames, same_plaintexts=True)
    exact, hoisting = model.program(2, exact=True), model.program(2)
    np.testing.assert_array_equal(exact.run(model.words(frames), model.native_keys(exact)), expected)
    got = model.decrypt(hoisting.run(model.words(frames), model.native_keys(hoisting)))
    simulation = model.simulate(image)
    assert_as_noisy_as_predicted(got - simulation.outputs[0], simulation.deviation)


def test_thousands_of_runs_take_no_more_memory():
    parameters = tiny_parameters(1024, (30, 24, 28), 30)
    twin, ring = Twin(parameters, (1, 7)), NativeRing(parameters)
    circuit = every_operation(parameters.slots, 2, twin.steps)
    inputs = twin.ciphertexts(2, 2)
    expected = twin.on_seal(circuit, inputs, 2, SCALE)
    resident = []
    for number in range(6000):
        # Programs and keys come and go as clients do; so do threads, for they belong to a program.
        if number % 20 == 0:
            threads = 1 + number // 20 % 3
            typed = TypedCircuit(circuit, parameters, 2, SCALE)
            program = NativeProgram(typed, ring, NativeOptions(threads), exact=True)
            keys = twin.native_keys(ring, program, threads)
        outputs = program.run(inputs, keys)
        if number % 100 == 0:
            for mine, theirs in zip(outputs, expected, strict=True):
                np.testing.assert_array_equal(mine, theirs)
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    # Later runs take what the first third of them took, but for what the interpreter's heap moves by.
    assert max(resident[40:]) <= max(resident[:20]) + (4 << 20)

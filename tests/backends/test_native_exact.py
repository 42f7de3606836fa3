"""Word for word what SEAL computes, on words of every kind."""

import numpy as np
import pytest
from circuits import SCALE, Builder, every_operation
from rings import tiny_parameters
from twin import Twin, instruction_sets, words_of

from heinfer.backends.native import NativeRing
from heinfer.circuit.ir import Kind
from heinfer.ckks.parameters import Parameters
from heinfer.formats.residues import CiphertextFrame, Seed
from heinfer.formats.seal_writer import write_ciphertext

CHAINS = {
    "4096": Parameters.create(4096, [26, 26, 24], 28),
    "4096, one level": Parameters.create(4096, [30], 30),
    "8192, as shipped": Parameters.create(8192, [28, 26, 26, 26, 26, 26, 26], 30),
    "8192, widest": Parameters.create(8192, [30] * 6, 30),
    "8192, uneven": Parameters.create(8192, [30, 20, 27, 22, 29, 24], 30),
}
"""Secure ones; in the uneven one a residue of one prime is up to 1000 times the next prime."""

UNEVEN = tiny_parameters(64, (30, 17, 24, 19, 28), 30)
LONG = tiny_parameters(128, (30,) * 27, 30)
"""More digits than 64 bits hold products of."""


@pytest.mark.parametrize("draw", ["random", "extreme"])
@pytest.mark.parametrize("chain", CHAINS)
def test_every_operation_at_every_level(chain, draw):
    parameters = CHAINS[chain]
    twin = Twin(parameters, (1, parameters.slots // 2 + 3), draw)
    for level in range(parameters.top_level + 1):
        twin.assert_equal(every_operation(parameters.slots, level, twin.steps), level, SCALE)


@pytest.mark.parametrize("draw", ["random", "extreme"])
@pytest.mark.parametrize("parameters", [UNEVEN, LONG], ids=["uneven", "long"])
def test_every_operation_with_every_instruction_set(parameters, draw):
    twin = Twin(parameters, (1, 7, parameters.slots - 1), draw)
    for level in range(0, parameters.top_level + 1, 1 if parameters is UNEVEN else 13):
        twin.assert_equal(every_operation(parameters.slots, level, twin.steps), level, SCALE, instruction_sets())


@pytest.mark.parametrize("kernels", instruction_sets())
@pytest.mark.parametrize("bits", [(30, 17, 24), (20, 20, 20), (30, 30, 30)])
def test_digits_that_are_zero_stay_zero_when_their_sign_changes(kernels, bits):
    # The digits of an exact rotation are q - x, but 0 for x = 0; a word that is a multiple of the target's prime is
    # 0 only after its reduction, and does change.
    parameters = tiny_parameters(64, bits, 30)
    twin, ring = Twin(parameters, (1, 5, 31)), NativeRing(parameters, kernels)
    primes = parameters.data_primes
    choices = [{0, 1, q - 1, *(min(k * p, q - 1) for p in primes for k in (1, 2, 3))} for q in primes]
    rng = np.random.default_rng(3)
    coefficients = np.stack([rng.choice(sorted(c), 64) for c in choices]).astype(np.uint32)
    c1 = np.asarray(ring.handle.forward(coefficients, [0, 1, 2]))
    (c0, _), *_ = twin.ciphertexts(1, 2)
    b = Builder(32)
    x = b.input()
    circuit = b.circuit(*(b.op(Kind.ROTATE, x, step=step) for step in twin.steps))
    expected = twin.on_seal(circuit, [(c0, c1)], 2, SCALE)
    got = twin.on_native(circuit, [(c0, c1)], 2, SCALE, kernels=kernels)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kernels", instruction_sets())
@pytest.mark.parametrize(
    "parameters", [CHAINS["4096"], CHAINS["8192, uneven"], LONG, UNEVEN], ids=lambda p: str(len(p.primes))
)
def test_seeds_are_expanded_as_seal_expands_them(kernels, parameters):
    twin, ring = Twin(parameters, ()), NativeRing(parameters, kernels)
    for number in range(4):
        level = parameters.top_level - number % (parameters.top_level + 1)
        primes, seed = parameters.primes_at(level), np.random.default_rng(number).bytes(64)
        c0 = np.ones((level + 1, parameters.ring_degree), dtype=np.uint32)
        frame = CiphertextFrame(level, SCALE, c0, seed=Seed(seed))
        loaded = twin.seal.load_ciphertext(write_ciphertext(frame, parameters))
        np.testing.assert_array_equal(ring.expand(seed, primes), words_of(loaded)[1])

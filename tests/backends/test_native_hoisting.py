"""Rotations that share their digits: not SEAL's words, but the same plaintexts but for a noise that is derived here.

Where a rotation changes the sign of a coefficient x of digit j, SEAL's digit is q_j - x and the shared one -x. They
differ by q_j times a polynomial of zeros and ones; that times the key's error e_j, whose coefficients have variance
10.5, and divided by P, is what the results differ by, besides what rounding by P adds to each: (1 + 2N/3) / 12.
"""

import numpy as np
import pytest
from circuits import Builder
from rings import insecure_ring, tiny_parameters
from tenseal import sealapi
from twin import instruction_sets

from heinfer.backends.native import NativeKeys, NativeProgram, NativeRing
from heinfer.circuit.ir import Kind
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.seal import from_bytes
from heinfer.ckks.secret import SecretSide
from heinfer.formats.residues import CiphertextFrame, Words
from heinfer.formats.seal_reader import read_ciphertext, read_key
from heinfer.formats.seal_writer import write_ciphertext

DEVIATIONS = 8
STEPS = (1, 5, 40, 63)


class Client:
    """A secret key, a ciphertext under it, and the coefficients that ciphertexts decrypt to."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.seal = insecure_ring(parameters)
        self.secret = SecretSide.generate_in(self.seal)
        self.keys = [read_key(self.secret.galois_key(step), parameters, step) for step in STEPS]

    def encrypt(self, ring: NativeRing, level: int) -> tuple[Words, Words]:
        slots = np.random.default_rng(0).normal(size=self.parameters.slots)
        frame = read_ciphertext(self.secret.encrypt(slots, level, 2.0**20), self.parameters)
        assert frame.seed is not None
        return frame.c0, ring.expand(frame.seed.data, self.parameters.primes_at(level))

    def coefficients(self, ring: NativeRing, words: Words) -> np.ndarray:
        """Modulo the first prime, of the least absolute value; (N,)."""
        frame = CiphertextFrame(words.shape[1] - 1, 2.0**20, *words)
        loaded = from_bytes(sealapi.Ciphertext(), self.seal.context, write_ciphertext(frame, self.parameters))
        plaintext = sealapi.Plaintext()
        self.secret._decryptor.decrypt(loaded, plaintext)
        n, q = self.parameters.ring_degree, self.parameters.data_primes[0]
        row = np.array([[plaintext.data(i) for i in range(n)]], dtype=np.uint32)
        signed = np.asarray(ring.handle.inverse(row, [0]))[0].astype(np.int64)
        return (signed + q // 2) % q - q // 2


@pytest.mark.parametrize("kernels", instruction_sets())
@pytest.mark.parametrize(
    "parameters",
    [tiny_parameters(128, (30, 28, 30), 30), Parameters.create(8192, [28, 26, 26, 26, 26, 26], 30)],
    ids=lambda p: str(p.ring_degree),
)
def test_hoisted_rotations_decrypt_to_seals_but_for_the_derived_noise(parameters, kernels):
    client, ring = Client(parameters), NativeRing(parameters, kernels)
    keys_of = {frame.step: frame for frame in client.keys}
    for level in {0, parameters.top_level}:
        b = Builder(parameters.slots)
        x = b.input()
        circuit = b.circuit(*(b.op(Kind.ROTATE, x, step=step, hoist=0) for step in STEPS))
        typed = TypedCircuit(circuit, parameters, level, 2.0**20)
        words = [client.encrypt(ring, level)]
        results = []
        for exact in (True, False):  # an exact run gives SEAL's words: test_native_exact.py
            program = NativeProgram(typed, ring, exact=exact)
            keys = NativeKeys(ring, typed.key_levels)
            for step, frame in keys_of.items():
                keys.add(step, frame.digits, [seed.data for seed in frame.seeds])
            results.append(program.run(words, keys))
            assert program.executed.rotations_hoisted == (0 if exact else len(STEPS))
        deviation = difference_deviation(parameters, level)
        for exact, hoisted in zip(*results, strict=True):
            assert not np.array_equal(exact, hoisted)
            difference = client.coefficients(ring, exact) - client.coefficients(ring, hoisted)
            assert np.abs(difference).max() <= DEVIATIONS * deviation


def difference_deviation(parameters: Parameters, level: int) -> float:
    """Of one coefficient of the difference."""
    n = parameters.ring_degree
    ratios = sum((q / parameters.special_prime) ** 2 for q in parameters.primes_at(level))
    return float(np.sqrt(10.5 * n * ratios + 2 * (1 + 2 * n / 3) / 12))

"""The library's transforms, moves and encoding against the formulas they are defined by."""

import numpy as np
import pytest
from circuits import SCALE, Builder
from hypothesis import given, settings
from hypothesis import strategies as st
from rings import insecure_ring, tiny_parameters
from tenseal import sealapi
from twin import Twin, instruction_sets, words_below

from heinfer.backends.native import NativeKeys, NativeProgram, NativeRing
from heinfer.backends.native.library import library
from heinfer.circuit.ir import Kind
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.seal import parms_words

RINGS = {n: tiny_parameters(n, (30, 24, 28), 30) for n in (64, 128, 256, 512)}


def reversed_bits(n: int) -> np.ndarray:
    """brv(i) for i < n."""
    bits = n.bit_length() - 1
    return np.array([int(f"{i:0{bits}b}"[::-1], 2) for i in range(n)])


def least_root(n: int, q: int) -> int:
    """The least primitive 2n-th root of unity: the least x with x^n = -1."""
    generator = next(x for x in range(2, q) if pow(x, (q - 1) // 2, q) == q - 1)
    root = pow(generator, (q - 1) // (2 * n), q)
    return min(pow(root, odd, q) for odd in range(1, 2 * n, 2))


def naive_matrix(n: int, q: int) -> np.ndarray:
    """(n, n): psi^((2 brv(i) + 1) j) modulo q."""
    psi = least_root(n, q)
    powers = np.array([pow(psi, e, q) for e in range(2 * n)], dtype=np.uint64)
    return powers[np.outer(2 * reversed_bits(n) + 1, np.arange(n)) % (2 * n)]


def rows_of(draw: str, parameters: Parameters) -> np.ndarray:
    return words_below(np.random.default_rng(0), parameters.primes, (parameters.ring_degree,), draw)


@pytest.mark.parametrize("kernels", instruction_sets())
@pytest.mark.parametrize("n", RINGS)
@pytest.mark.parametrize("draw", ["random", "extreme"])
def test_a_transform_evaluates_the_polynomial_at_the_roots(kernels, n, draw):
    parameters = RINGS[n]
    rows = rows_of(draw, parameters)
    got = np.asarray(NativeRing(parameters, kernels).handle.forward(rows, list(range(len(parameters.primes)))))
    for row, values, q in zip(rows, got, parameters.primes, strict=True):
        naive = (naive_matrix(n, q) * row % np.uint64(q)).sum(axis=1) % np.uint64(q)
        np.testing.assert_array_equal(values, naive)


@pytest.mark.parametrize("kernels", instruction_sets())
@pytest.mark.parametrize("n", [64, 128, 256, 1024, 4096, 8192, 16384, 32768, 131072])
@pytest.mark.parametrize("draw", ["random", "extreme"])
def test_the_inverse_transform_undoes_the_forward_one(kernels, n, draw):
    parameters = tiny_parameters(n, (30, 24, 28), 30)
    ring, primes = NativeRing(parameters, kernels).handle, list(range(4))
    rows = rows_of(draw, parameters)
    forward = np.asarray(ring.forward(rows, primes))
    assert (forward < np.array(parameters.primes)[:, None]).all()
    np.testing.assert_array_equal(ring.inverse(forward, primes), rows)
    np.testing.assert_array_equal(forward, NativeRing(parameters, "portable").handle.forward(rows, primes))


@pytest.mark.parametrize("kernels", instruction_sets())
@pytest.mark.parametrize("n", [64, 128, 1024])
def test_a_rotation_moves_the_first_polynomial_as_its_automorphism_does(kernels, n):
    # With a key of zeros (its random halves meet the second polynomial only) the first one is moved, and no more.
    parameters = tiny_parameters(n, (30, 24), 30)
    steps = range(1, n // 2, 1 if n == 64 else 17)
    ring, twin = NativeRing(parameters, kernels), Twin(parameters, ())
    b = Builder(parameters.slots)
    x = b.input()
    circuit = b.circuit(*(b.op(Kind.ROTATE, x, step=s) for s in steps))
    program = NativeProgram(TypedCircuit(circuit, parameters, 1, SCALE), ring)
    keys = NativeKeys(ring, program.typed.key_levels)
    for step in steps:
        keys.add(step, np.zeros((2, 3, n), dtype=np.uint32), [bytes(64)] * 2)
    words = twin.ciphertexts(1, 1)
    reverse = reversed_bits(n)
    for step, out in zip(steps, program.run(words, keys), strict=True):
        g = pow(3, step, 2 * n)
        source = reverse[((g * (2 * reverse + 1)) >> 1) % n]
        np.testing.assert_array_equal(out[0], words[0][0][:, source])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), bits=st.integers(0, 100), size=st.floats(-20, 20), n=st.sampled_from([64, 4096]))
def test_constants_are_encoded_as_on_seal_but_for_rounding(seed, bits, size, n):
    parameters = tiny_parameters(n, (30, 28, 30, 29), 30)
    scale, primes = 2.0**bits, list(range(4))
    slots = np.random.default_rng(seed).normal(size=n // 2) * 2.0**size
    if np.abs(slots).max() * scale * n > 2.0**110:  # SEAL refuses what the modulus has no place for
        return
    context = insecure_ring(parameters).context
    plaintext = sealapi.Plaintext()
    ids = parms_words(parameters, parameters.data_primes)
    sealapi.CKKSEncoder(context).encode(slots.tolist(), ids, scale, plaintext)
    theirs = np.array([plaintext.data(i) for i in range(4 * n)], dtype=np.uint32).reshape(4, n)
    ring = NativeRing(parameters).handle
    mine = np.asarray(library().encode(ring, slots, scale, primes))
    difference = centred(ring.inverse(mine, primes), parameters) - centred(ring.inverse(theirs, primes), parameters)
    # Each coefficient is a sum of n products by log2(n) stages of doubles: a relative error of 2^-52 a stage.
    most = 1 + 8 * n.bit_length() * 2.0**-52 * scale * np.abs(slots).sum() * 2 / n
    assert np.abs(difference).max() <= most


def centred(rows: np.ndarray, parameters: Parameters) -> np.ndarray:
    """Coefficients as Python integers, of the least absolute value."""
    primes = parameters.data_primes
    modulus = int(np.prod(np.array(primes, dtype=object)))
    total = sum(
        np.asarray(row).astype(object) * (modulus // q * pow(modulus // q, -1, q))
        for row, q in zip(rows, primes, strict=True)
    )
    return (total + modulus // 2) % modulus - modulus // 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2.0**126, -(2.0**126)])
@pytest.mark.parametrize("size", [1, 32])
def test_a_constant_that_fits_no_modulus_is_refused(bad, size):
    b = Builder(32)
    circuit = b.circuit(b.with_constant(Kind.MULTIPLY_PLAIN, b.input(), np.full(size, bad), 1.0))
    with pytest.raises(ValueError, match="constant"):
        NativeProgram(TypedCircuit(circuit, RINGS[64], 2, SCALE), NativeRing(RINGS[64]))


@pytest.mark.parametrize(
    ("n", "primes"),
    [
        (32, [193, 257]),
        (96, [193, 257]),
        (2**18, [786433, 5767169]),
        (64, [257]),
        (64, [257, 2**31 - 1]),
        (64, [257, 129 * 257]),
        (64, [257, 0]),
        (64, [1, 257]),
    ],
)
def test_what_is_no_ring_is_refused(n, primes):
    with pytest.raises(ValueError, match=r"prime|ring degree"):
        library().Ring(n, primes)

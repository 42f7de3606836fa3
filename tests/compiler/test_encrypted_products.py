"""Products of two branches, compiled and evaluated on ciphertexts by both backends."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from encrypted import EncryptedRun, precision_bits
from native_model import NativeModel
from random_networks import branching, convolution, dense, polynomial

from heinfer.circuit.counts import count_circuit
from heinfer.ckks.seal import Ring
from heinfer.compiler.compile import compile_network
from heinfer.compiler.model import CompiledModel
from heinfer.formats import bundle as bundles
from heinfer.formats.manifest import Preprocessing
from heinfer.network.ir import INPUT, Network
from heinfer.network.joints import Product
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, AveragePool, Chebyshev, Dense, Flatten, Square
from heinfer.planner.requirements import DEFAULT, Requirements

RNG = np.random.default_rng(11)
PIXELS = Preprocessing(divisor=255, mean=(0.0,), std=(1.0,), low=0.0, high=1.0)
HEAD = dense(RNG, 64, 3)


def spread(channels: int, side: int) -> Affine:
    """One number a channel over the planes that it is multiplied with: what broadcasting is."""
    rows = np.arange(channels * side * side)
    return Affine(
        LinearMap.from_entries((channels,), (channels, side, side), rows, rows // side**2, np.ones(rows.size))
    )


# conv, times a gate of the pooled input; act; dense: squeeze and excitation beside the convolution
GATED = branching(
    (1, 8, 8),
    (convolution(RNG, 1, 4, 3, 2, 1), INPUT),
    (AveragePool((8, 8), (8, 8)), INPUT),
    (Dense(RNG.normal(size=(4, 1)), RNG.normal(size=4)), 1),
    (spread(4, 4), 2),
    (Product(), 0, 3),
    (polynomial(RNG, 4), 4),
    (Flatten(), 5),
    (HEAD, 6),
)
# x^3
CUBIC = branching(
    (1, 8, 8),
    (convolution(RNG, 1, 4, 3, 2, 1), INPUT),
    (Square(), 0),
    (Product(), 0, 1),
    (Flatten(), 2),
    (HEAD, 3),
)


@cache
def compiled(network: Network, requirements: Requirements = DEFAULT) -> CompiledModel:
    calibration = np.random.default_rng(1).random((16, *network.input_shape))
    return compile_network(network, calibration, name="small", preprocessing=PIXELS, requirements=requirements)


def assert_runs_encrypted(network: Network, bits: float) -> None:
    """In cleartext exactly, on real ciphertexts of both backends to so many bits, with the counts that are planned."""
    model = compiled(network)
    encrypted = EncryptedRun(model, Ring.secure(model.plan.parameters))
    x = np.random.default_rng(3).random(network.input_shape)
    exact = network(x[None])[0]
    assert np.abs(model(x[None])[0] - exact).max() < 1e-10 * np.abs(exact).max()
    assert precision_bits(encrypted(x), exact) > bits
    counts = count_circuit(model.bundle.circuit)
    assert encrypted.program.executed == replace(counts, rotations_hoisted=0)
    assert counts == model.report.counts

    native, image = NativeModel(model.bundle), np.random.default_rng(4).integers(0, 256, (8, 8), dtype=np.uint8)
    frames, program = native.encrypt(image), native.program()
    scores = model.plan.output.unpack(native.decrypt(program.run(native.words(frames), native.native_keys(program))))
    exact = network(image[None, None] / 255)[0]
    assert precision_bits(np.ldexp(scores, -model.manifest.output.exponent), exact) > bits
    assert program.executed == counts


@pytest.mark.parametrize("network", [pytest.param(GATED, id="gate"), pytest.param(CUBIC, id="cube")])
def test_products_run_encrypted_on_both_backends(network: Network) -> None:
    assert_runs_encrypted(network, 7)


@pytest.mark.parametrize("degree", [7, pytest.param(15, marks=pytest.mark.slow)])
def test_a_series_runs_encrypted_on_both_backends(degree: int) -> None:
    """tanh on [-4, 4] between a convolution and a dense layer."""
    fitted = np.polynomial.chebyshev.chebinterpolate(lambda t: np.tanh(4 * t), degree)
    tanh = Chebyshev(fitted[None], np.zeros(1), np.full(1, 4.0))
    network = branching((1, 8, 8), (convolution(RNG, 1, 4, 3, 2, 1), INPUT), (tanh, 0), (Flatten(), 1), (HEAD, 2))
    assert_runs_encrypted(network, 7)


def test_a_batch_runs_through_products() -> None:
    model = compiled(GATED, Requirements(batch=4))
    x = np.random.default_rng(2).random((8, 1, 8, 8))
    np.testing.assert_allclose(model(x), GATED(x), atol=1e-9)


def test_a_bundle_keeps_products() -> None:
    model = compiled(GATED)
    assert bundles.from_bytes(bundles.to_bytes(model.bundle)).circuit.ops == model.bundle.circuit.ops

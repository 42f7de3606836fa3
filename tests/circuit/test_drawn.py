"""Drawn errors: what an encrypted run has, of kinds that a variance for each slot does not know."""

from dataclasses import replace

import numpy as np
import pytest

from heinfer.circuit.builder import Builder
from heinfer.circuit.drawn import keys_of, run_noisy
from heinfer.circuit.encoding import rounded, to_coefficients, to_slots
from heinfer.circuit.interpret import run
from heinfer.circuit.ir import Circuit
from heinfer.circuit.noise import predict_noise
from heinfer.circuit.statistics import observe
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters

SLOTS = 2048
RING = Parameters.create(2 * SLOTS, [30, 30], 30)
RNG = np.random.default_rng(0)


def test_slots_come_back_from_coefficients() -> None:
    slots = RNG.normal(size=(2, SLOTS)) + 1j * RNG.normal(size=(2, SLOTS))
    coefficients = to_coefficients(slots)
    assert coefficients.shape == (2, 2 * SLOTS)
    np.testing.assert_allclose(to_slots(coefficients), slots, atol=1e-12)


def test_what_all_slots_share_is_one_coefficient_and_rounded_once() -> None:
    assert rounded(np.array([0.3]), 2.0) == pytest.approx(0.5)
    np.testing.assert_allclose(rounded(np.full(SLOTS, 0.3), 2.0), 0.5, atol=1e-12)


def noisy(circuit: Circuit, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors (inputs, slots), and the deviation (slots,) that variances predict."""
    typed = TypedCircuit(circuit, RING, 1, 2.0**34)
    errors = run_noisy(typed, inputs) - run(circuit, inputs)
    (variance,) = predict_noise(typed, observe(circuit, inputs, 1.0))
    return errors[:, 0], np.sqrt(variance)


def times_a_plaintext() -> tuple[Builder, int]:
    builder = Builder(SLOTS)
    return builder, builder.multiply_plain(builder.input(0), RNG.normal(size=SLOTS))


def scaled(circuit: Circuit, scale: float) -> Circuit:
    return replace(circuit, ops=tuple(replace(op, scale=scale) if op.constant >= 0 else op for op in circuit.ops))


def test_where_errors_are_independent_they_are_as_large_as_predicted() -> None:
    builder, product = times_a_plaintext()
    circuit = scaled(builder.finish((builder.rescale(product),)), 2.0**26)
    errors, deviation = noisy(circuit, RNG.normal(size=(64, 1, SLOTS)))
    assert np.sqrt((errors**2).mean()) == pytest.approx(np.sqrt((deviation**2).mean()), rel=0.05)


def test_errors_that_a_sum_shares_add_up() -> None:
    """x + x has twice the error of x; independent ones would have the square root of it."""
    builder = Builder(SLOTS)
    source = builder.rotate(builder.input(0), 1)
    errors, deviation = noisy(builder.finish((builder.add(source, source),)), RNG.normal(size=(16, 1, SLOTS)))
    ratio = np.sqrt((errors**2).mean(axis=0)) / deviation
    assert np.sqrt((ratio**2).mean()) == pytest.approx(np.sqrt(2), rel=0.1)


def test_the_rounding_of_a_plaintext_is_the_same_in_every_run() -> None:
    builder, product = times_a_plaintext()
    circuit = scaled(builder.finish((product,)), 2.0**8)
    errors, _ = noisy(circuit, np.ones((2, 1, SLOTS)))
    assert np.corrcoef(errors)[0, 1] > 0.99


def test_some_slots_are_noisier_than_others_under_one_key() -> None:
    builder, product = times_a_plaintext()
    circuit = scaled(builder.finish((builder.rescale(product),)), 2.0**26)
    errors, _ = noisy(circuit, RNG.normal(size=(256, 1, SLOTS)))
    under_one = np.sqrt((errors[keys_of(256) == 0] ** 2).mean(axis=0))
    assert under_one.max() > 2 * under_one.mean()

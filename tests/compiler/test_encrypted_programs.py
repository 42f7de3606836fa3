"""Random networks of the whole operator set, from torch to ciphertexts and back, with SEAL."""

import numpy as np
import pytest
import torch
from encrypted import EncryptedRun
from random_programs import program

import heinfer
from heinfer.circuit.precision import sizes
from heinfer.ckks.seal import Ring
from heinfer.errors import NoiseError, PlanError, RangeError
from heinfer.formats.manifest import Preprocessing

_CONSTANT = pytest.mark.xfail(reason="scores that are all but constant, 0.51 and 2e-7 of it, miss the bits by 3.5")
SEEDS = [pytest.param(seed, marks=[_CONSTANT] if seed == 1003 else []) for seed in range(1000, 1020)]
ALLOWED = 0.7
"""Bits: what is predicted is the worst of 200 inputs in three of four times."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # noise of random weights; torch on even kernels and "same"
@pytest.mark.parametrize("seed", SEEDS)
def test_a_network_is_as_precise_as_predicted_or_refused_by_name(seed: int) -> None:
    made = program(seed, steps=3, products=2)
    values = Preprocessing(divisor=1, mean=(0.0,), std=(1.0,), low=made.low, high=made.high, kind="values")
    x = made.inputs(48).numpy()
    try:
        model = heinfer.compile(made.module, x, name=f"seed-{seed}", preprocessing=values)
    except (NoiseError, RangeError, PlanError) as error:
        pytest.skip(f"refused: {error}")
    with torch.no_grad():
        expected = made.module(torch.tensor(x)).numpy()
    assert np.abs(model(x) - expected).max() <= 1e-9 * np.abs(expected).max()
    run = EncryptedRun(model, Ring.secure(model.plan.parameters))
    exponent = model.manifest.output.exponent
    scores = np.stack([np.ldexp(run(row), exponent).reshape(expected.shape[1:]) for row in x[:3]])
    size = sizes(expected.reshape(len(x), -1), is_classification=False)[:3]
    error_of = np.abs(scores - expected[:3]).reshape(3, -1).max(axis=1)
    predicted = float(model.bundle.metadata["predicted precision"].removesuffix(" bits"))
    assert -np.log2((error_of / size).max()) >= predicted - ALLOWED

"""Random torch modules of planes with channels, through the whole compiler: scores, planned and executed counts."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, reject, settings
from random_modules import Module
from random_networks import branching_networks, networks

import heinfer
from heinfer.circuit.counts import count_circuit, count_layers
from heinfer.compiler.model import CompiledModel
from heinfer.errors import NoiseError
from heinfer.formats.manifest import Preprocessing
from heinfer.network.ir import Network
from heinfer.planner.plan import LinearStep

WIDE = {"least": 10, "side": 16, "widest": 12}
"""Planes of 10 to 16 rows and columns at first, at most 12 channels."""
few = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a network takes many minutes
)
pytestmark = pytest.mark.filterwarnings("ignore::heinfer.errors.NoiseWarning")  # weights are random, scores alike


def compiled(module: torch.nn.Module, shape: tuple[int, ...]) -> CompiledModel:
    pixels = Preprocessing(divisor=255, mean=(0.0,) * shape[0], std=(1.0,) * shape[0], low=0.0, high=1.0)
    return heinfer.compile(module, np.random.default_rng(0).random((8, *shape)), name="random", preprocessing=pixels)


def assert_executes_what_is_planned(model: CompiledModel) -> None:
    """The native library counts its instructions, on words that need be no ciphertexts."""
    from twin import Twin  # noqa: PLC0415 - skips where there is no native library

    from heinfer.backends.native import NativeProgram, NativeRing  # noqa: PLC0415

    typed = model.bundle.typed
    twin, ring = Twin(typed.parameters, tuple(typed.circuit.steps())), NativeRing(typed.parameters)
    program = NativeProgram(typed, ring)
    program.run(twin.ciphertexts(typed.circuit.inputs, typed.input_level), twin.native_keys(ring, program))
    assert program.executed == count_circuit(typed.circuit)


def assert_compiles(network: Network) -> None:
    """The circuit of the module computes what torch does; what is planned is counted, and is executed."""
    module = Module(network).eval()
    try:
        model = compiled(module, network.input_shape)
    except NoiseError:  # of many squares: nothing is left of what a score tells
        reject()
    x = np.random.default_rng(1).random((3, *network.input_shape))
    with torch.no_grad():
        expected = module(torch.as_tensor(x)).numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    for step, counts in zip(model.plan.steps, count_layers(model.bundle.circuit), strict=True):
        if isinstance(step, LinearStep):
            assert counts.hma == step.plan.counts.hma  # layers of one tensor share rotations, and some are composed
    assert model.report.counts == count_circuit(model.bundle.circuit)
    if find_spec("heinfer_native"):
        assert_executes_what_is_planned(model)


@settings(few, max_examples=3)
@given(networks(most=4, **WIDE))
def test_a_chain_computes_what_torch_does(network: Network) -> None:
    assert_compiles(network)


@settings(few, max_examples=2)
@given(branching_networks(blocks=1, **WIDE))
def test_branches_compute_what_torch_does(network: Network) -> None:
    assert_compiles(network)


@pytest.mark.slow
@settings(few, max_examples=20)
@given(networks(most=5, **WIDE))
def test_many_chains_compute_what_torch_does(network: Network) -> None:
    assert_compiles(network)


@pytest.mark.slow
@settings(few, max_examples=10)
@given(branching_networks(blocks=2, **WIDE))
def test_many_branches_compute_what_torch_does(network: Network) -> None:
    assert_compiles(network)

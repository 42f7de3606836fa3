"""The input scale follows from the declared range of the inputs, so that they keep their bits wherever they are."""

import numpy as np
import pytest
import torch
from encrypted import EncryptedRun, precision_bits
from torch import nn

import heinfer
from heinfer.circuit.passes.scales import input_bits
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.seal import Ring
from heinfer.compiler.model import CompiledModel
from heinfer.errors import RangeError
from heinfer.nn import PolyActivation
from heinfer.planner.requirements import Requirements

RING = Parameters.create(4096, [28, 26], 30)


@pytest.mark.parametrize(
    ("largest", "bits"),
    [(1.0, 34), (2.83, 34), (0.3, 34), (0.2, 36), (255.0, 26), (1e-3, 44), (4000.0, 22), (1e12, 0), (1e-12, 51)],
)
def test_larger_inputs_have_a_smaller_scale_and_it_fits_the_modulus(largest: float, bits: float) -> None:
    assert input_bits(largest, RING, 1) == bits


def test_a_range_that_fits_no_modulus_is_refused() -> None:
    with pytest.raises(RangeError, match=r"^the input: values up to 1e\+60 fit no modulus: declare the range"):
        input_bits(1e60, RING, 1)


def compiled(layer: nn.Linear, largest: float) -> CompiledModel:
    inputs = np.random.default_rng(0).uniform(-largest, largest, (64, layer.in_features))
    values = heinfer.Preprocessing(divisor=1, mean=(0,), std=(1,), low=-largest, high=largest, kind="values")
    kept = Requirements(headroom=0)  # all bits that there are
    return heinfer.compile(layer, inputs, name="affine", preprocessing=values, requirements=kept)


@pytest.mark.parametrize("largest", [1e-6, 1e-3, 255.0, 4000.0, 1e6])
def test_inputs_far_from_one_come_back_as_precise_as_others(largest: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(30, 2).double()
    layer.weight.data /= largest
    model = compiled(layer, largest)
    run = EncryptedRun(model, Ring.secure(model.plan.parameters))
    x = np.random.default_rng(1).uniform(-largest, largest, 30)
    assert precision_bits(np.ldexp(run(x), model.manifest.output.exponent), model(x[None])[0]) > 11


def test_inputs_and_weights_that_are_both_large_compile() -> None:
    """A plain affine map of inputs within 1000 and weights to 300; at the scale of inputs near one 4 bits were left."""
    torch.manual_seed(0)
    layer = nn.Linear(20, 3).double()
    nn.init.uniform_(layer.weight, -300, 300)
    model = compiled(layer, 1000.0)
    x = np.random.default_rng(1).uniform(-1000, 1000, 20)
    run = EncryptedRun(model, Ring.secure(model.plan.parameters))
    assert precision_bits(np.ldexp(run(x), model.manifest.output.exponent), model(x[None])[0]) > 11


def test_the_scale_says_nothing_of_the_weights() -> None:
    first, second = nn.Linear(30, 2).double(), nn.Linear(30, 2).double()
    second.weight.data *= 1000
    assert compiled(first, 100.0).manifest.input.scale == compiled(second, 100.0).manifest.input.scale


def test_a_layer_without_room_is_named_with_its_values() -> None:
    """A batch norm that blows up what a layer's inputs vary by, with large products that cancel."""
    torch.manual_seed(0)
    first, last = nn.Linear(8, 8), nn.Linear(8, 4)
    for value in (first.weight, first.bias):
        value.data *= 0.01
    norm = nn.BatchNorm1d(4, eps=1e-30)
    module = nn.Sequential(first, PolyActivation(8), last, norm).double()
    inputs = np.random.default_rng(0).uniform(-1, 1, (64, 8))
    norm.momentum = None
    module.train()(torch.from_numpy(inputs))
    values = heinfer.Preprocessing(divisor=1, mean=(0,), std=(1,), low=-1, high=1, kind="values")
    with pytest.raises(RangeError, match=r"^2\S*: values up to \d+ need \d\.\d bits more than there are: normalise"):
        heinfer.compile(module.eval(), inputs, name="large", preprocessing=values)

"""Test sets with noise, and inputs as bad as can be sent."""

from dataclasses import replace

import numpy as np
import pytest
from encrypted import EncryptedRun
from random_networks import convolution
from small_model import SHAPE, small_model

from heinfer.ckks.seal import Ring
from heinfer.compiler.at_scale import _gradient, worst_input
from heinfer.compiler.model import CompiledModel
from heinfer.network.folding import fold
from heinfer.network.ir import Network, Node
from heinfer.network.joints import Add
from heinfer.network.operators import Flatten, Square

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    return small_model()


def test_the_noise_of_a_test_set_is_that_of_encrypted_runs(model: CompiledModel) -> None:
    images = RNG.random((1000, *SHAPE))
    found = model.simulate_many(images)
    np.testing.assert_allclose(found.scores, model(images), atol=1e-9)
    np.testing.assert_allclose((found.noisy - found.scores).std(axis=0), found.deviations, rtol=0.1)
    run = EncryptedRun(model, Ring.secure(model.plan.parameters))
    errors = np.stack([run(image) for image in images[:40]]) - found.scores[:40]
    assert 0.5 < np.sqrt((errors**2).mean() / (found.deviations**2).mean()) < 2


def test_margins_are_in_deviations_of_the_difference(model: CompiledModel) -> None:
    found = model.simulate_many(RNG.random((50, *SHAPE)))
    first, second = np.argsort(found.scores, axis=1)[:, :-3:-1].T
    rows = np.arange(50)
    ahead = found.scores[rows, first] - found.scores[rows, second]
    apart = np.hypot(found.deviations[first], found.deviations[second])
    assert (found.sigmas <= ahead / apart + 1e-9).all()
    assert found.changed == (found.noisy.argmax(axis=1) != first).sum()
    assert "50 inputs" in repr(found)


def branched() -> Network:
    """A convolution whose square is added to itself."""
    rng = np.random.default_rng(3)
    nodes = (
        Node("conv", convolution(rng, 1, 2, 3, padding=1)),
        Node("square", Square()),
        Node("add", Add(), (0, 1)),
        Node("flat", Flatten(), (2,)),
    )
    return fold(Network((1, 4, 4), nodes))


def test_the_gradient_is_that_of_differences() -> None:
    network, x = branched(), RNG.normal(size=(1, 4, 4))
    found = _gradient(network, x, target=5)
    step = 1e-6
    for place in np.ndindex(x.shape):
        there, back = x.copy(), x.copy()
        there[place] += step
        back[place] -= step
        ends = np.abs(network(np.stack([there, back])).reshape(2, -1)[:, 5])
        assert found[place] == pytest.approx((ends[0] - ends[1]) / 2 / step, rel=1e-4, abs=1e-6)


def test_the_worst_input_is_within_the_range_and_worse_than_those_it_came_from(model: CompiledModel) -> None:
    images = RNG.random((8, *SHAPE))
    found = model.worst_input(images)
    assert found.input.min() >= 0
    assert found.input.max() <= 1
    assert found.score == pytest.approx(np.abs(model(found.input[None])).max())
    assert found.score > found.typical_score
    assert found.deviation > 0
    assert not found.wraps


def test_of_an_affine_map_it_is_the_worst_there_is() -> None:
    network = fold(Network((1, 4, 4), (Node("conv", convolution(np.random.default_rng(1), 1, 1, 4)),)))
    found = worst_input(network, np.full((1, 1, 4, 4), 0.1), -1.0, 1.0, np.ones(1))
    (linear,) = (node.operator.map for node in network.nodes)
    bound = np.abs(linear.entries.values).sum() - abs(linear.bias[0])
    assert abs(float(network(found[None]).ravel()[0])) >= bound - 1e-9


def test_an_input_that_wraps_is_said_to(model: CompiledModel) -> None:
    found = model.worst_input(RNG.random((2, *SHAPE)))
    assert replace(found, capacity=0.9 * found.score).wraps

"""Balancing: what powers of two keep, how far labels survive scores of any size, and what is refused by name."""

from dataclasses import replace

import numpy as np
import pytest
from encrypted import EncryptedRun
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import SEEDS, branching_networks, inputs_for, networks
from small_model import NETWORK, PIXELS, SHAPE

from heinfer.ckks.seal import Ring
from heinfer.compiler.compile import compile_network
from heinfer.compiler.model import CompiledModel
from heinfer.errors import NoiseError, NoiseWarning
from heinfer.network.balancing import balance
from heinfer.network.folding import fold
from heinfer.network.ir import Network, Node
from heinfer.network.joints import Product
from heinfer.network.operators import Affine, ChannelAffine, Dense, Square
from heinfer.planner.requirements import Requirements

LABELS = ("a", "b", "c")
IMAGES = np.random.default_rng(2).random((3, *SHAPE))


def ending_in(weight: float = 1.0, bias: float = 0.0, shared: float = 0.0) -> Network:
    """The small network with its last layer times a number, and the same added to all scores."""
    *before, last = NETWORK.nodes
    dense = last.operator
    assert isinstance(dense, Dense)
    common = shared * np.random.default_rng(5).normal(size=(1, dense.weight.shape[1]))
    after = Dense(dense.weight * weight + common, dense.bias * weight + bias)
    return Network(SHAPE, (*before, Node(last.name, after)))


def with_first_layer(factor: float) -> Network:
    """The small network with its first layer times a number, and the activation a square."""
    first, _, *rest = NETWORK.nodes
    scaled = replace(first.operator, weight=first.operator.weight * factor, bias=first.operator.bias * factor)
    return Network(SHAPE, (Node(first.name, scaled), Node("act", Square()), *rest))


def compiled(network: Network, labels: tuple[str, ...] = LABELS, precision_bits: float = 6.0) -> CompiledModel:
    calibration = np.random.default_rng(1).random((32, *SHAPE))
    return compile_network(
        network,
        calibration,
        name="small",
        preprocessing=PIXELS,
        labels=labels,
        requirements=Requirements(precision_bits=precision_bits),
    )


def decrypted(model: CompiledModel) -> np.ndarray:
    run = EncryptedRun(model, Ring.secure(model.plan.parameters))
    return np.stack([run(x) for x in IMAGES])


@settings(max_examples=30, deadline=None)
@given(st.one_of(networks(), branching_networks(products=True)), SEEDS)
def test_a_balanced_network_is_the_same_to_the_last_bit_but_for_a_power_of_two(network: Network, seed: int) -> None:
    folded = fold(network)
    rng = np.random.default_rng(seed)
    last = folded.shapes[-1]
    size = float(10.0 ** rng.integers(-9, 9))
    nodes = (*folded.nodes, Node("size", ChannelAffine(np.full(last[0], size), np.zeros(last[0]))))
    folded = fold(Network(folded.input_shape, nodes))
    x = inputs_for(network, 4)
    balanced = balance(folded, x, is_classification=False)
    assert np.array_equal(balanced.network(x), np.ldexp(folded(x), balanced.exponents[0]))
    for tensor, node in zip(list(balanced.network.values(x))[1:], balanced.network.nodes, strict=True):
        if isinstance(node.operator, Square | Product):
            assert np.abs(tensor).max() < 2**16
        elif tensor.any():
            assert 1 <= np.abs(tensor).max() < 2**8


@settings(max_examples=30, deadline=None)
@given(networks(), st.floats(-1e6, 1e6))
def test_what_scores_share_is_all_that_a_classification_loses(network: Network, bias: float) -> None:
    folded = fold(network)
    x = inputs_for(network, 4)
    scores = folded(x).reshape(4, -1)
    *before, last = folded.nodes
    linear = last.operator.map  # the last of a chain is one map
    moved = Node(last.name, Affine(linear.with_bias_added(np.full(linear.bias.size, bias))))
    balanced = balance(replace(folded, nodes=(*before, moved)), x, is_classification=True)
    found = np.ldexp(balanced.network(x).reshape(4, -1), -balanced.exponents[0])
    assert np.ptp(found - scores, axis=1).max() <= 1e-9 * max(1.0, abs(bias), np.abs(scores).max())
    assert np.abs(found).max() <= np.abs(scores + bias).max() * (1 + 1e-9)
    if scores.shape[1] > 1 and abs(bias) > 4 * np.abs(scores).max():
        assert np.abs(found).max() <= 1.001 * np.abs(scores).max()


@pytest.mark.parametrize(
    "network",
    [
        ending_in(1e-6),
        ending_in(1e6),
        ending_in(1e-12),
        ending_in(bias=1000.0),
        ending_in(1e-3, bias=1000.0),
        ending_in(1e-3, bias=-1000.0, shared=100.0),
        with_first_layer(1e-6),
        with_first_layer(1e6),
    ],
    ids=["last e-6", "last e6", "last e-12", "bias", "small and bias", "shared", "first e-6", "first e6"],
)
def test_labels_do_not_depend_on_the_size_of_a_layer(network: Network) -> None:
    model = compiled(network)
    assert np.array_equal(decrypted(model).argmax(axis=1), network(IMAGES).argmax(axis=1))


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_scores_of_any_size_come_back_in_their_own_size(factor: float) -> None:
    network = ending_in(factor)
    model = compiled(network, labels=())
    assert np.abs(model(IMAGES) - network(IMAGES)).max() < 1e-10 * factor
    scores = np.ldexp(decrypted(model), model.manifest.output.exponent)
    assert np.abs(scores - network(IMAGES)).max() < 2**-8 * np.abs(network(IMAGES)).max()


def test_scores_that_are_no_classification_are_not_shifted() -> None:
    network = ending_in(bias=1000.0)
    assert np.abs(compiled(network, labels=())(IMAGES) - network(IMAGES)).max() < 1e-9
    shifted = compiled(network)(IMAGES) - network(IMAGES)
    assert np.ptp(shifted) < 1e-9 < np.abs(shifted).max()


def drowning(weight: float) -> Network:
    """Scores apart by what a channel adds that is small beside another of the same layer."""
    rng = np.random.default_rng(0)
    first, *_ = NETWORK.nodes
    sizes = np.array([weight, 1.0])
    scaled = replace(first.operator, weight=first.operator.weight * sizes[:, None, None, None], bias=np.zeros(2))
    fc = np.zeros((3, 32))
    fc[:, :16] = rng.normal(size=(3, 16)) / weight**2
    fc_node = Node("fc", Dense(fc, np.zeros(3)))
    return Network(SHAPE, (Node(first.name, scaled), Node("act", Square()), NETWORK.nodes[2], fc_node))


def test_labels_that_noise_would_mostly_change_are_refused_and_the_layer_named() -> None:
    with pytest.raises(NoiseError, match=r"^fc: predicted noise changes the label of \d+\.\d% of"):
        compiled(drowning(1e-6))
    with pytest.raises(NoiseError, match=r"^fc: predicted noise leaves 0\.0 bits"):
        compiled(drowning(1e-6), labels=())


def test_scores_that_tell_little_beside_their_size_are_refused_when_they_are_values() -> None:
    with pytest.raises(NoiseError, match=r"^fc: predicted noise leaves 0\.\d bits of what a score tells"):
        compiled(ending_in(1e-6, bias=1000.0), labels=())


def test_labels_that_noise_changes_now_and_then_are_warned_of() -> None:
    with pytest.warns(NoiseWarning, match=r"predicted noise changes the label of \d\.\d% of the calibration inputs"):
        compiled(drowning(7e-4), precision_bits=0)
    with pytest.raises(
        NoiseError, match=r"6 bits are asked for.*fewer are asked for by Requirements\(precision_bits=\d\)"
    ):
        compiled(drowning(7e-4))

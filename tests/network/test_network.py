"""Operators as sparse matrices, and folding, against the operators themselves."""

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import dense_matrix
from random_networks import SEEDS, batch_norm, chain, convolution, dense, inputs_for, networks, polynomial

from heinfer.errors import ShapeError
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import (
    Affine,
    AveragePool,
    ChannelAffine,
    Convolution,
    Dense,
    Flatten,
    Linear,
    Operator,
    Polynomial,
    Square,
)

quick = settings(max_examples=40, deadline=None)
close = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


# Operators against naive loops and torch -----------------------------------------------------------


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Convolution, np.ndarray]:
    """A convolution of any stride, padding, dilation and grouping, and a batch of inputs that it takes."""
    rng = np.random.default_rng(draw(SEEDS))
    groups, c_group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    c_out = groups * draw(st.integers(1, 3))
    pairs = [draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(3)]
    kernel, stride, dilation = pairs
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    least = [max(d * (k - 1) + 1 - 2 * p, 1) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    height, width = (n + draw(st.integers(0, 5)) for n in least)
    weight, bias = rng.normal(size=(c_out, c_group, *kernel)), rng.normal(size=c_out)
    x = rng.normal(size=(2, groups * c_group, height, width))
    return Convolution(weight, bias, stride, padding, dilation, groups), x


def convolved_by_loops(op: Convolution, x: np.ndarray) -> np.ndarray:
    c_out, c_group, *kernel = op.weight.shape
    (s_y, s_x), (p_y, p_x), (d_y, d_x) = op.stride, op.padding, op.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (p_y, p_y), (p_x, p_x)))
    out_y = (padded.shape[2] - d_y * (kernel[0] - 1) - 1) // s_y + 1
    out_x = (padded.shape[3] - d_x * (kernel[1] - 1) - 1) // s_x + 1
    result = np.zeros((x.shape[0], c_out, out_y, out_x))
    for o, y_out, x_out in np.ndindex(c_out, out_y, out_x):
        result[:, o, y_out, x_out] = op.bias[o]
        for c, k_y, k_x in np.ndindex(c_group, *kernel):
            channel = o // (c_out // op.groups) * c_group + c
            pixel = padded[:, channel, y_out * s_y + k_y * d_y, x_out * s_x + k_x * d_x]
            result[:, o, y_out, x_out] += op.weight[o, c, k_y, k_x] * pixel
    return result


@quick
@given(convolutions())
def test_a_convolution_equals_naive_loops(case: tuple[Convolution, np.ndarray]) -> None:
    op, x = case
    expected = convolved_by_loops(op, x)
    assert op.output_shape(x.shape[1:]) == expected.shape[1:]
    np.testing.assert_allclose(op(x), expected, **close)


@quick
@given(case=convolutions())
def test_a_convolution_equals_torch(torch: Any, case: tuple[Convolution, np.ndarray]) -> None:
    op, x = case
    arrays = (torch.from_numpy(a) for a in (x, op.weight, op.bias))
    expected = torch.nn.functional.conv2d(*arrays, op.stride, op.padding, op.dilation, op.groups)
    np.testing.assert_allclose(op(x), expected.numpy(), **close)


@quick
@given(
    case=st.tuples(SEEDS, st.integers(1, 3), st.integers(3, 8), st.integers(3, 8)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_an_average_pool_equals_torch(
    torch: Any, case: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int]
) -> None:
    seed, *shape = case
    x = np.random.default_rng(seed).normal(size=(2, *shape))
    expected = torch.nn.functional.avg_pool2d(torch.from_numpy(x), kernel, stride)
    np.testing.assert_allclose(AveragePool(kernel, stride)(x), expected.numpy(), **close)


def test_a_batch_norm_equals_torch(torch: Any) -> None:
    rng = np.random.default_rng(0)
    x, mean, variance = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=3), rng.uniform(0.5, 2, 3)
    weight, bias = rng.normal(size=3), rng.normal(size=3)
    arrays = (torch.from_numpy(a) for a in (x, mean, variance, weight, bias))
    expected = torch.nn.functional.batch_norm(*arrays, training=False, eps=1e-5)
    scale = weight / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(ChannelAffine(scale, bias - mean * scale)(x), expected.numpy(), **close)


def test_dense_layers_flatten_row_by_row() -> None:
    rng = np.random.default_rng(0)
    op, x = dense(rng, 24, 5), rng.normal(size=(3, 2, 3, 4))
    np.testing.assert_allclose(op(x), x.reshape(3, 24) @ op.weight.T + op.bias, **close)
    assert np.array_equal(Flatten()(x), x.reshape(3, 24))


@pytest.mark.parametrize("coefficients", [1, 3])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 4)])
def test_coefficients_belong_to_channels(coefficients: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *shape))
    a, b, c = (rng.normal(size=coefficients) for _ in range(3))
    wide = [np.broadcast_to(v, 3).reshape(3, *[1] * (len(shape) - 1)) for v in (a, b, c)]
    np.testing.assert_allclose(Polynomial(a, b, c)(x), wide[0] * x**2 + wide[1] * x + wide[2], **close)
    np.testing.assert_allclose(ChannelAffine(a, b)(x), wide[0] * x + wide[1], **close)
    np.testing.assert_allclose(Square()(x), x**2, **close)


@quick
@given(networks())
def test_a_linear_operator_is_the_matrix_that_it_says(network: Network) -> None:
    shapes = (network.input_shape, *network.shapes)
    for node, shape in zip(network.nodes, shapes, strict=False):
        if isinstance(node.operator, Linear):
            linear = node.operator.linear_map(shape)
            keys = linear.entries.rows * prod(shape) + linear.entries.cols
            assert (np.diff(keys) > 0).all()  # sorted, no entry twice
            identity = np.eye(prod(shape)).reshape(-1, *shape)
            columns = (node.operator(identity) - node.operator(0 * identity)).reshape(prod(shape), -1)
            np.testing.assert_allclose(dense_matrix(linear), columns.T, **close)


# Maps --------------------------------------------------------------------------------------------


def random_linear(rng: np.random.Generator, inputs: int, outputs: int) -> LinearMap:
    rows, cols = np.nonzero(rng.random((outputs, inputs)) < 0.4)
    values = rng.integers(-2, 3, rows.size).astype(float)
    return LinearMap.from_entries((inputs,), (outputs,), rows, cols, values, rng.normal(size=outputs))


def structure(linear: LinearMap) -> set[tuple[int, int]]:
    return set(zip(linear.entries.rows.tolist(), linear.entries.cols.tolist(), strict=True))


@quick
@given(SEEDS, st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
def test_a_product_has_the_product_of_structures_whatever_cancels(seed: int, n: int, m: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = random_linear(rng, n, m), random_linear(rng, m, k)
    product = first.then(second)
    assert structure(product) == {(i, j) for i, a in structure(second) for b, j in structure(first) if a == b}
    x = rng.normal(size=(4, n))
    np.testing.assert_allclose(product(x), second(first(x)), **close)


def test_entries_at_one_place_add_up_and_stay_when_they_cancel() -> None:
    rows, cols = np.array([1, 0, 1]), np.array([2, 1, 2])
    linear = LinearMap.from_entries((3,), (2,), rows, cols, np.array([5.0, 7.0, -5.0]))
    assert linear.entries.rows.tolist() == [0, 1]
    assert linear.entries.cols.tolist() == [1, 2]
    assert linear.entries.values.tolist() == [7, 0]


def test_scale_and_bias_can_be_changed() -> None:
    rng = np.random.default_rng(0)
    linear, x = random_linear(rng, 4, 3), rng.normal(size=(2, 4))
    rows = rng.normal(size=3)
    scaled = linear.times_power_of_two(-3, 2)
    np.testing.assert_array_equal(scaled.entries.values, linear.entries.values / 8)
    np.testing.assert_array_equal(scaled.bias, 4 * linear.bias)
    np.testing.assert_allclose(linear.with_bias_added(rows)(x), linear(x) + rows, **close)


def test_maps_that_do_not_meet_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ShapeError, match=r"to \(3,\) cannot be followed by one from \(5,\)"):
        random_linear(rng, 4, 3).then(random_linear(rng, 5, 2))


# Folding -----------------------------------------------------------------------------------------


def assert_folds(network: Network) -> Network:
    """The folded network computes the same and is made of maps, joined as far as may be, and squares."""
    folded = fold(network)
    x = inputs_for(network, 3)
    expected = network(x)
    np.testing.assert_allclose(folded(x), expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    kinds = [type(node.operator) for node in folded.nodes]
    assert set(kinds) <= {Affine, Square}
    assert kinds[0] is kinds[-1] is Affine
    assert folded.output_shape == network.output_shape
    assert {node.name for node in folded.nodes} <= {node.name for node in network.nodes} | {"input", "output"}
    return folded


@quick
@given(networks(most=6))
def test_a_folded_network_equals_the_network(network: Network) -> None:
    folded = assert_folds(network)
    squares = sum(isinstance(node.operator, Polynomial | Square) for node in network.nodes)
    mixers = sum(isinstance(node.operator, Convolution | Dense | AveragePool) for node in network.nodes)
    kinds = [type(node.operator) for node in folded.nodes]
    assert kinds.count(Square) == squares
    assert kinds.count(Affine) <= mixers + squares + 1


RNG = np.random.default_rng(7)
FIRST = convolution(RNG, 1, 3, 3, padding=1)
SECOND = convolution(RNG, 3, 2, 3, padding=1)
ACTIVATION, NORM = polynomial(RNG, 3), batch_norm(RNG, 3)
POOL = AveragePool((2, 2), (2, 2))


@pytest.mark.parametrize(
    ("operators", "levels"),
    [
        pytest.param([FIRST, NORM, ACTIVATION, SECOND], "A S A", id="batch norm joins the convolution before it"),
        pytest.param([FIRST, ACTIVATION, NORM, SECOND], "A S A", id="batch norm joins the convolution after it"),
        pytest.param([FIRST, ACTIVATION, POOL, SECOND], "A S A A", id="pool after the activation"),
        pytest.param([FIRST, POOL, ACTIVATION, SECOND], "A A S A", id="pool before the activation"),
        pytest.param([FIRST, POOL, SECOND], "A A A", id="pool between convolutions"),
        pytest.param([POOL, FIRST], "A A", id="pool first"),
        pytest.param([FIRST, ACTIVATION, POOL], "A S A", id="pool last"),
        pytest.param([polynomial(RNG, 1), FIRST], "A S A", id="polynomial first"),
        pytest.param([FIRST, ACTIVATION], "A S A", id="polynomial last"),
        pytest.param([polynomial(RNG, 1)], "A S A", id="polynomial alone"),
        pytest.param([polynomial(RNG, 1), polynomial(RNG, 1)], "A S A S A", id="two polynomials"),
        pytest.param([Square(), Square()], "A S S A", id="two squares"),
        pytest.param([FIRST, SECOND], "A A", id="two convolutions stay two"),
        pytest.param([FIRST, Flatten(), dense(RNG, 108, 4)], "A A", id="flatten joins the dense layer"),
        pytest.param([FIRST, ACTIVATION, Flatten()], "A S A", id="flatten last"),
        pytest.param([batch_norm(RNG, 1)], "A", id="nothing but a batch norm"),
    ],
)
def test_what_a_folded_network_is_made_of(operators: list[Operator], levels: str) -> None:
    folded = assert_folds(chain((1, 6, 6), *operators))
    assert " ".join(type(node.operator).__name__[0] for node in folded.nodes) == levels


def test_the_constant_of_an_activation_becomes_a_bias_that_depends_on_position() -> None:
    """Zero padding pads the activation's output, so the constant reaches a border pixel through fewer taps."""
    constant = 3.0
    activation = Polynomial(np.ones(1), np.zeros(1), np.array([constant]))
    ones = Convolution(np.ones((1, 1, 3, 3)), np.zeros(1), padding=(1, 1))
    identity = Convolution(np.ones((1, 1, 1, 1)), np.zeros(1))
    folded = assert_folds(chain((1, 4, 4), identity, activation, ones))
    last = folded.nodes[-1].operator
    assert isinstance(last, Affine)
    taps = np.array([[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])
    assert np.array_equal(last.map.bias.reshape(4, 4), constant * taps)


def test_layers_keep_their_names() -> None:
    operators = [FIRST, NORM, ACTIVATION, POOL, SECOND, Flatten()]
    network = chain((1, 6, 6), *operators)
    assert [n.name for n in fold(network).nodes] == ["convolution0", "polynomial2", "averagepool3", "convolution4"]


def test_folding_never_looks_at_weights() -> None:
    def build(factor: float) -> Network:
        weight, bias = factor * FIRST.weight, factor * FIRST.bias
        scaled = ChannelAffine(factor * NORM.scale, NORM.shift)
        return fold(chain((1, 6, 6), Convolution(weight, bias, padding=(1, 1)), scaled, ACTIVATION, POOL, SECOND))

    for one, other in zip(build(1.0).nodes, build(0.0).nodes, strict=True):
        assert one.name == other.name
        if isinstance(one.operator, Affine):
            assert isinstance(other.operator, Affine)
            assert structure(one.operator.map) == structure(other.operator.map)


# Shapes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "shape", "complaint"),
    [
        (FIRST, (2, 6, 6), "expected 1 channels, got 2"),
        (FIRST, (36,), "takes .channels, height, width."),
        (convolution(RNG, 1, 1, 5), (1, 4, 6), "larger than the padded input"),
        (dense(RNG, 8, 2), (3, 3), "expected 8 elements, got 9"),
        (NORM, (2, 6, 6), "3 channel values do not fit"),
        (ACTIVATION, (2, 6, 6), "coefficients for 3 channels"),
        (POOL, (3, 1, 1), "larger than the padded input"),
        (Affine(random_linear(RNG, 4, 2)), (5,), r"expected \(4,\), got \(5,\)"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_by_the_layer_name(
    operator: Operator, shape: tuple[int, ...], complaint: str
) -> None:
    name = f"{type(operator).__name__.lower()}0"
    with pytest.raises(ShapeError, match=f"^{name}: .*{complaint}"):
        _ = chain(shape, operator).output_shape


def test_a_network_refuses_a_batch_of_another_shape() -> None:
    with pytest.raises(ShapeError, match="the network takes"):
        chain((1, 6, 6), FIRST)(np.zeros((2, 1, 5, 6)))

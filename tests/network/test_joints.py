"""Where branches meet: sums and concatenations, and what folding makes of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from planning import dense_matrix
from random_networks import batch_norm, branching, branching_networks, chain, convolution, dense, inputs_for, polynomial

from heinfer.errors import ShapeError
from heinfer.network.folding import fold
from heinfer.network.ir import INPUT, Network, Node
from heinfer.network.joints import Add, AffineSum, Concat, Product
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, AveragePool, Flatten, Polynomial, Square
from heinfer.network.terms import collected, composed, substituted

RNG = np.random.default_rng(5)
ACT, NORM, POOL = polynomial(RNG, 2), batch_norm(RNG, 2), AveragePool((2, 2), (2, 2))
CONV, OTHER, WIDE = (convolution(RNG, c_in, 2, 3, 1, 1) for c_in in (2, 2, 4))
HALF = convolution(RNG, 2, 2, 3, 2, 1)
SHAPE = (2, 4, 4)


def moved(shape: tuple[int, ...], index: np.ndarray) -> Affine:
    """Every element of the result is one of a tensor of a shape, written out one by one."""
    rows, cols = np.arange(index.size), index.reshape(-1)
    return Affine(LinearMap.from_entries(shape, index.shape, rows, cols, np.ones(index.size)))


NUMBERED = np.arange(32).reshape(SHAPE)
UPSAMPLED = moved(SHAPE, NUMBERED.repeat(2, axis=1).repeat(2, axis=2))
UPSAMPLED_AGAIN = moved((2, 8, 8), np.arange(128).reshape(2, 8, 8).repeat(2, axis=1).repeat(2, axis=2))
HALVES = [moved(SHAPE, NUMBERED[i : i + 1]) for i in range(2)]
PERMUTED = moved(SHAPE, NUMBERED[::-1, :, ::-1])
OTHER_LARGE = replace(OTHER, padding=(3, 3))
ONE_CHANNEL = convolution(RNG, 1, 1, 3, 1, 1)


def assert_folds(network: Network) -> Network:
    folded = fold(network)
    x = inputs_for(network, 3)
    expected = network(x)
    np.testing.assert_allclose(folded(x), expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    assert {type(node.operator) for node in folded.nodes} <= {Affine, AffineSum, Square, Product}
    for node, reads in zip(folded.nodes, folded.reads, strict=True):
        if isinstance(node.operator, Square | Product):
            assert INPUT not in reads
    assert not isinstance(folded.nodes[-1].operator, Square | Product)
    assert set(folded.last_use) == set(range(-1, len(folded.nodes) - 1))  # nothing is made in vain
    return folded


def folded_names(network: Network) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, kind and reads of the nodes of a folded network."""
    folded = assert_folds(network)
    kinds = {Affine: "A", AffineSum: "+", Square: "S", Product: "P"}
    return [(n.name, kinds[type(n.operator)], reads) for n, reads in zip(folded.nodes, folded.reads, strict=True)]


# Joints ------------------------------------------------------------------------------------------


def test_a_sum_and_a_concatenation_are_what_they_are_called() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 3, *SHAPE))
    assert np.array_equal(Add()([x, y, x]), x + y + x)
    assert np.array_equal(Product()([x, y]), x * y)
    assert np.array_equal(Concat()([x, y[:, :1]]), np.concatenate([x, y[:, :1]], axis=1))
    assert (Add().output_shape([SHAPE, SHAPE]), Concat().output_shape([SHAPE, (3, 4, 4)])) == (SHAPE, (5, 4, 4))


def test_maps_side_by_side_are_a_map_of_all_elements() -> None:
    maps = (CONV.linear_map(SHAPE), HALF.linear_map(SHAPE), dense(RNG, 5, 32).linear_map((5,)))
    assert [m.out_shape for m in maps] == [SHAPE, (2, 2, 2), (32,)]
    pair = (maps[0], maps[2])
    x, z = np.random.default_rng(0).normal(size=(3, 32)), np.random.default_rng(1).normal(size=(3, 5))
    both = LinearMap.side_by_side(pair)
    np.testing.assert_allclose(
        both(np.concatenate([x, z], axis=1)).reshape(3, -1), pair[0](x).reshape(3, -1) + pair[1](z)
    )
    assert both.in_shape == (37,)
    assert np.array_equal(dense_matrix(AffineSum(pair).map), dense_matrix(both))
    assert both.size == pair[0].size + pair[1].size


def test_maps_of_other_sizes_do_not_add() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 4, 4\) to \(2, 4, 4\) and \(2, 4, 4\) to \(2, 2, 2\)"):
        CONV.linear_map(SHAPE).plus(HALF.linear_map(SHAPE))


def test_a_bias_enters_once_wherever_terms_are_put_together() -> None:
    a, b, c = (dense(RNG, 3, 3).linear_map((3,)) for _ in range(3))
    x, y = np.random.default_rng(0).normal(size=(2, 4, 3))
    made = composed(((0, a), (1, b)), c)
    np.testing.assert_allclose(sum(m(v) for (_, m), v in zip(made, (x, y), strict=True)), c(a(x) + b(y)))
    put = substituted(((2, c), (0, a)), 2, ((0, a), (1, b)))
    assert [source for source, _ in put] == [0, 1]
    np.testing.assert_allclose(sum(m(v) for (_, m), v in zip(put, (x, y), strict=True)), c(a(x) + b(y)) + a(x))
    [(_, twice)] = collected(((0, a), (0, a)))
    np.testing.assert_allclose(twice(x), 2 * a(x))


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        ([(CONV, INPUT), (HALF, 0), (Add(), 0, 1)], r"^add2: .* one shape, not \(2, 4, 4\) and \(2, 2, 2\)"),
        ([(HALF, INPUT), (Concat(), INPUT, 0)], r"^concat1: .* agree in all else, unlike \(2, 4, 4\) and \(2, 2, 2\)"),
        ([(CONV, INPUT), (Flatten(), 0), (Concat(), 0, 1)], r"^concat2: .* unlike \(2, 4, 4\) and \(32,\)"),
        ([(CONV, INPUT), (HALF, 0), (Product(), 0, 1)], r"^product2: .* one shape, not \(2, 4, 4\) and \(2, 2, 2\)"),
        ([(Product(), INPUT)], r"^product0: a product has two factors of one shape, not \(2, 4, 4\)$"),
        ([(CONV, 1)], r"^convolution0: node 0 cannot read \(1,\)"),
        ([(CONV, INPUT, INPUT)], r"^convolution0: node 0 cannot read \(-1, -1\)"),
        ([(Add(),)], r"^add0: node 0 cannot read \(\)"),
        ([(AffineSum((CONV.linear_map(SHAPE),)), INPUT, INPUT)], r"^affinesum0: expected \(2, 4, 4\), got"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_layer_name(nodes: list, complaint: str) -> None:
    with pytest.raises(ShapeError, match=complaint):
        _ = branching(SHAPE, *nodes).output_shape


def test_a_chain_is_one_however_it_is_written() -> None:
    assert chain(SHAPE, CONV, ACT).is_chain
    assert branching(SHAPE, (CONV, INPUT), (ACT, 0)).is_chain
    assert not branching(SHAPE, (CONV, INPUT), (Add(), INPUT, 0)).is_chain
    assert all(node.inputs is None for node in fold(branching(SHAPE, (CONV, INPUT), (ACT, 0))).nodes)


# Folding -----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(branching_networks(blocks=3, products=True))
def test_a_folded_network_equals_the_network(network: Network) -> None:
    folded = assert_folds(network)
    multiplied = sum(isinstance(node.operator, Polynomial | Square | Product) for node in network.nodes)
    assert sum(isinstance(node.operator, Square | Product) for node in folded.nodes) <= multiplied


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param([(CONV, INPUT), (Add(), INPUT, 0)], [("convolution0+add1", "A", (-1,))], id="linear residual"),
        pytest.param([(NORM, INPUT), (Add(), INPUT, 0), (CONV, 1)], [("convolution2", "A", (-1,))], id="diagonal"),
        pytest.param(
            [(CONV, INPUT), (NORM, INPUT), (Concat(), 0, 1, 0), (Flatten(), 2)],
            [("convolution0+concat2", "A", (-1,))],
            id="linear concatenation",
        ),
        pytest.param(
            [(CONV, INPUT), (OTHER, 0), (Add(), INPUT, 1)],
            [("convolution0", "A", (-1,)), ("convolution1+add2", "+", (-1, 0))],
            id="of two mixing maps only the last goes into the sum",
        ),
        pytest.param(
            [(CONV, INPUT), (ACT, 0), (OTHER, 1), (NORM, 2), (Add(), 3, INPUT), (ACT, 4), (Flatten(), 5)],
            [
                ("convolution0", "A", (-1,)),
                ("polynomial1", "S", (0,)),
                ("convolution2+add4", "+", (1, -1)),
                ("polynomial5", "S", (2,)),
                ("polynomial5", "A", (3,)),
            ],
            id="residual block",
        ),
        pytest.param(
            [(CONV, INPUT), (ACT, 0), (OTHER, 1), (ACT, 2), (HALF, 3), (HALF, 1), (Add(), 4, 5)],
            [
                ("convolution0", "A", (-1,)),
                ("polynomial1", "S", (0,)),
                ("convolution2", "A", (1,)),
                ("polynomial3", "S", (2,)),
                ("convolution4+convolution5+add6", "+", (3, 1)),
            ],
            id="convolution in the shortcut",
        ),
        pytest.param(
            [(CONV, INPUT), (ACT, 0), (OTHER, 1), (ACT, 2), (Concat(), 1, 3), (WIDE, 4)],
            [
                ("convolution0", "A", (-1,)),
                ("polynomial1", "S", (0,)),
                ("convolution2", "A", (1,)),
                ("polynomial3", "S", (2,)),
                ("concat4", "+", (1, 3)),
                ("convolution5", "A", (4,)),
            ],
            id="a concatenation of squares stays for the search to merge",
        ),
        pytest.param(
            [(CONV, INPUT), (NORM, 0), (OTHER, 1), (Add(), 1, 2), (Add(), 3, 1)],
            [("convolution0", "A", (-1,)), ("convolution2+add4", "A", (0,))],
            id="what several read is made once",
        ),
        pytest.param(
            [(Square(), INPUT), (Add(), 0, INPUT)],
            [("input", "A", (-1,)), ("square0", "S", (0,)), ("add1", "+", (1, -1))],
            id="square of the input",
        ),
        pytest.param(
            [(CONV, INPUT), (Product(), INPUT, 0), (Product(), INPUT, 1)],
            [
                ("convolution0", "A", (-1,)),
                ("input", "A", (-1,)),
                ("product1", "P", (1, 0)),
                ("product2", "P", (1, 2)),
                ("output", "A", (3,)),
            ],
            id="the input as a factor is laid out once",
        ),
        pytest.param(
            [(CONV, INPUT), (Product(), 0, 0)],
            [("convolution0", "A", (-1,)), ("product1", "S", (0,)), ("output", "A", (1,))],
            id="a tensor times itself is a square",
        ),
        pytest.param(
            [(CONV, INPUT), (NORM, 0), (ACT, 1), (OTHER, 2), (NORM, 3), (Product(), 2, 4)],
            [
                ("convolution0", "A", (-1,)),
                ("polynomial2", "S", (0,)),
                ("polynomial2", "A", (1,)),
                ("convolution3", "A", (1,)),
                ("product5", "P", (2, 3)),
                ("output", "A", (4,)),
            ],
            id="a map reads what is made of a square without waiting for it",
        ),
        pytest.param(
            [(CONV, INPUT), (UPSAMPLED, 0), (ACT, 1), (UPSAMPLED_AGAIN, 2), (POOL, 3)],
            [
                ("convolution0", "A", (-1,)),
                ("affine1", "A", (0,)),
                ("polynomial2", "S", (1,)),
                ("averagepool4", "A", (2,)),
            ],
            id="a copy goes into the map after it, and not into the one before",
        ),
        pytest.param(
            [(CONV, INPUT), (UPSAMPLED, 0), (OTHER_LARGE, INPUT), (Add(), 1, 2)],
            [("convolution0", "A", (-1,)), ("convolution2+add3", "+", (0, -1))],
            id="a copy goes into a sum, and what it copies does not",
        ),
        pytest.param(
            [(CONV, INPUT), (HALVES[0], 0), (HALVES[1], 0), (Product(), 1, 2), (ONE_CHANNEL, 3)],
            [
                ("convolution0+affine1", "A", (-1,)),
                ("convolution0+affine2", "A", (-1,)),
                ("product3", "P", (0, 1)),
                ("convolution4", "A", (2,)),
            ],
            id="the halves of a gate are made by themselves",
        ),
        pytest.param(
            [(PERMUTED, INPUT), (CONV, 0), (PERMUTED, 1), (ACT, 2), (PERMUTED, 3), (OTHER, 4)],
            [("convolution1", "A", (-1,)), ("polynomial3", "S", (0,)), ("convolution5", "A", (1,))],
            id="a permutation goes into either neighbour",
        ),
    ],
)
def test_what_a_folded_network_is_made_of(nodes: list, expected: list[tuple[str, str, tuple[int, ...]]]) -> None:
    assert folded_names(branching(SHAPE, *nodes)) == expected


def test_what_leads_nowhere_is_left_out() -> None:
    nodes = [Node("one", CONV), Node("dead", ACT), Node("dead too", OTHER), Node("two", OTHER, (0,))]
    assert [node.name for node in assert_folds(Network(SHAPE, tuple(nodes))).nodes] == ["one", "two"]

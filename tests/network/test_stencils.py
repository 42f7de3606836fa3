"""Maps by their structure against the same maps written out: entries, values, products, sums, lookups, kinds."""

from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import dense_matrix, random_layout
from random_networks import SEEDS

from heinfer.layout.layout import Layout
from heinfer.layout.packings import Grid, Samples, cyclic_pack, dense_pack, plane_pack, power_of_two, sample_pack
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import (
    AveragePool,
    ChannelAffine,
    Convolution,
    Dense,
    Flatten,
    Linear,
    Shape,
    SparseConvolution,
)
from heinfer.planner.kernel.diagonals import DiagonalProblem
from heinfer.planner.kernel.translates import PatternSet, count_kinds

quick = settings(max_examples=80, deadline=None)
close = {"rtol": 1e-9, "atol": 1e-9}


def written_out(linear: LinearMap) -> LinearMap:
    """The same map without structure, through its entries."""
    e = linear.entries
    return LinearMap.from_entries(linear.in_shape, linear.out_shape, e.rows, e.cols, e.values, linear.bias)


def structure(linear: LinearMap) -> np.ndarray:
    """How often every entry is present."""
    found = np.zeros((linear.bias.size, linear.inputs), dtype=int)
    np.add.at(found, (linear.entries.rows, linear.entries.cols), 1)
    return found


def assert_equal(one: LinearMap, other: LinearMap) -> None:
    """Same shapes, entries (each once), values, biases, counts and images."""
    assert (one.in_shape, one.out_shape, one.size) == (other.in_shape, other.out_shape, other.size)
    assert structure(one).max(initial=0) <= 1
    np.testing.assert_array_equal(structure(one), structure(other))
    np.testing.assert_allclose(dense_matrix(one), dense_matrix(other), **close)
    np.testing.assert_allclose(one.bias, other.bias, **close)
    np.testing.assert_array_equal(one.reads, structure(one).sum(axis=1))
    np.testing.assert_array_equal(one.readers, structure(one).sum(axis=0))
    assert one.is_diagonal == other.is_diagonal
    x = np.random.default_rng(0).normal(size=(3, *one.in_shape))
    np.testing.assert_allclose(one(x), other(x), **close)


# Random operators ----------------------------------------------------------------------------------


def random_convolution(draw: st.DrawFn, rng: np.random.Generator, shape: Shape, outputs: int | None = None) -> Linear:
    """Any stride, padding, dilation and groups that fit planes."""
    groups = draw(st.sampled_from([g for g in range(1, shape[0] + 1) if shape[0] % g == 0]))
    c_out = outputs or groups * draw(st.integers(1, 2))
    groups = groups if c_out % groups == 0 else 1
    padding, dilation = ((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2))
    dilation = (dilation[0] + 1, dilation[1] + 1)
    room = [(n + 2 * p - 1) // d + 1 for n, p, d in zip(shape[1:], padding, dilation, strict=True)]
    kernel = [draw(st.integers(1, min(4, n))) for n in room]
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    weight = rng.integers(-3, 4, (c_out, shape[0] // groups, *kernel)).astype(float)
    return Convolution(weight, rng.normal(size=c_out), stride, padding, dilation, groups)


@st.composite
def operators(draw: st.DrawFn, shape: Shape) -> Linear:
    """Any linear operator that takes the shape."""
    rng = np.random.default_rng(draw(SEEDS))
    size, channels = prod(shape), shape[0]
    kinds = ["dense", "norm", "flatten", "sparse"] + ["convolution", "pool"] * 2 * (len(shape) == 3)
    match draw(st.sampled_from(kinds)):
        case "convolution":
            return random_convolution(draw, rng, shape)
        case "pool":
            kernel = draw(st.integers(1, min(3, shape[1]))), draw(st.integers(1, min(3, shape[2])))
            return AveragePool(kernel, (draw(st.integers(1, 3)), draw(st.integers(1, 3))))
        case "dense":
            outputs = draw(st.integers(1, 5))
            return Dense(rng.integers(-3, 4, (outputs, size)).astype(float), rng.normal(size=outputs))
        case "norm":
            return ChannelAffine(rng.normal(size=channels), rng.normal(size=channels))
        case "sparse":
            pairs = np.argwhere(rng.random((3, channels)) < 0.6)
            kernel = (1, 1) if len(shape) == 1 else (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
            weight = rng.integers(-3, 4, (len(pairs), *kernel)).astype(float)
            padding = (0, 0) if len(shape) == 1 else (1, 1)
            order = rng.permutation(len(pairs))
            return SparseConvolution(channels, *pairs[order].T, weight, rng.normal(size=3), padding=padding)
    return Flatten()


SHAPES = st.one_of(st.tuples(st.integers(1, 12)), st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)))


@st.composite
def maps(draw: st.DrawFn, shape: Shape, longest: int = 3) -> LinearMap:
    """Several operators one after the other, as one map."""
    linear = draw(operators(shape)).linear_map(shape)
    for _ in range(draw(st.integers(0, longest - 1))):
        linear = linear.then(draw(operators(linear.out_shape)).linear_map(linear.out_shape))
    return linear


# Laws ----------------------------------------------------------------------------------------------


@quick
@given(st.data())
def test_an_operator_is_what_it_is_written_out(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    linear = data.draw(operators(shape)).linear_map(shape)
    assert_equal(linear, written_out(linear))


@quick
@given(st.data())
def test_a_product_is_the_product_of_what_is_written_out(data: st.DataObject) -> None:
    first = data.draw(maps(data.draw(SHAPES)))
    after = data.draw(maps(first.out_shape))
    made = first.then(after)
    for one, other in product((first, written_out(first)), (after, written_out(after))):
        assert_equal(one.then(other), made)
    np.testing.assert_array_equal(structure(made), (structure(after) @ structure(first) > 0).astype(int))
    np.testing.assert_allclose(dense_matrix(made), dense_matrix(after) @ dense_matrix(first), **close)
    assert first.size_then(after) == written_out(first).size_then(after) == made.size


def test_a_product_is_bounded_where_counting_its_entries_takes_long() -> None:
    """By all that is reached, and without structure by the ways through the middle."""
    rng = np.random.default_rng(0)
    one, other = (Dense(rng.normal(size=(300, 300)), np.zeros(300)).linear_map((300,)) for _ in range(2))
    assert one.size_then(other) == 300 * 300
    mixed = Convolution(rng.normal(size=(64, 64, 1, 1)), np.zeros(64)).linear_map((64, 8, 8))
    keys = rng.choice(4096 * 4096, 200_000, replace=False)
    tangled = LinearMap.from_entries((4096,), (4096,), *np.divmod(keys, 4096), np.ones(keys.size))
    assert 4096 * 4096 >= mixed.size_then(tangled) == 64 * tangled.size


@quick
@given(st.data())
def test_a_sum_is_the_sum_of_what_is_written_out(data: st.DataObject) -> None:
    """Of convolutions whose kernels overlap in part, that of the one inside that of the other, or not at all."""
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(2, 6)))
    rng = np.random.default_rng(data.draw(SEEDS))
    found = []
    for _ in range(data.draw(st.integers(2, 4))):
        kernel = data.draw(st.tuples(st.sampled_from([1, 3]), st.sampled_from([1, 3])))
        pairs = np.argwhere(rng.random((2, shape[0])) < data.draw(st.sampled_from([0.5, 1.0])))
        weight = rng.integers(-3, 4, (len(pairs), *kernel)).astype(float)
        padding = kernel[0] // 2, kernel[1] // 2
        op = SparseConvolution(shape[0], *pairs.T, weight, rng.normal(size=2), padding=padding)
        found.append(op.linear_map(shape))
    if data.draw(st.booleans()):
        found.append(written_out(found.pop()))
    total, other = found[0], written_out(found[0])
    for linear in found[1:]:
        total, other = total.plus(linear), other.plus(written_out(linear))
    assert_equal(total, other)
    np.testing.assert_array_equal(structure(total), (sum(structure(linear) for linear in found) > 0).astype(int))
    after = random_convolution(data.draw, rng, total.out_shape).linear_map(total.out_shape)
    assert_equal(total.then(after), other.then(written_out(after)))
    assert total.then(after).size <= total.size_then(after) <= sum(one.size_then(after) for one in found)


@quick
@given(st.data())
def test_maps_side_by_side_are_those_written_out(data: st.DataObject) -> None:
    outputs = data.draw(st.integers(1, 4))
    found = []
    for _ in range(data.draw(st.integers(1, 3))):
        linear = data.draw(maps(data.draw(SHAPES)))
        last = Dense(np.random.default_rng(outputs).normal(size=(outputs, linear.bias.size)), np.ones(outputs))
        found.append(linear.then(last.linear_map(linear.out_shape)))
    both, plain = LinearMap.side_by_side(found), LinearMap.side_by_side([written_out(linear) for linear in found])
    assert_equal(both, plain)
    after = Dense(np.ones((2, outputs)), np.zeros(2)).linear_map((outputs,))
    assert_equal(both.then(after), plain.then(after))
    assert both.size_then(after) == both.then(after).size
    assert_equal(both.plus(plain), plain.plus(both))


@quick
@given(st.data())
def test_any_diagonal_before_and_after_is_a_product(data: st.DataObject) -> None:
    """Of one scale a channel or one an element, zeros among them."""
    linear = data.draw(maps(data.draw(SHAPES), longest=2))
    rng = np.random.default_rng(data.draw(SEEDS))
    before, after = (
        LinearMap.diagonal(shape, rng.integers(-1, 2, prod(shape)).astype(float), rng.normal(size=prod(shape)))
        for shape in (linear.in_shape, linear.out_shape)
    )
    assert_equal(before.then(linear).then(after), before.then(written_out(linear)).then(after))


@quick
@given(st.data())
def test_lookups_find_every_entry_and_no_other(data: st.DataObject) -> None:
    linear = data.draw(maps(data.draw(SHAPES)))
    rows, cols = (a.reshape(-1) for a in np.indices((linear.bias.size, linear.inputs)))
    np.testing.assert_array_equal(linear.values(rows, cols).reshape(linear.bias.size, -1), dense_matrix(linear))
    ranks = linear.ranks(rows, cols).reshape(linear.bias.size, -1)
    np.testing.assert_array_equal(ranks >= 0, structure(linear) > 0)
    for row, number in zip(ranks, linear.reads, strict=True):
        assert sorted(row[row >= 0].tolist()) == list(range(number))


@quick
@given(st.data())
def test_what_is_read_along_an_axis_is_that_of_the_entries(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    linear = random_convolution(data.draw, np.random.default_rng(0), shape).linear_map(shape)
    linear = linear.then(
        random_convolution(data.draw, np.random.default_rng(1), linear.out_shape).linear_map(linear.out_shape)
    )
    for axis in (0, 1):
        for one, other in zip(linear.along(axis), written_out(linear).along(axis), strict=True):
            assert one.tolist() == other.tolist()


# Kinds of terms between layouts ----------------------------------------------------------------------


@st.composite
def layouts(draw: st.DrawFn, shape: Shape, *, of_input: bool) -> Layout:
    """Any of the packings that hold the shape, or one at random."""
    rng = np.random.default_rng(draw(SEEDS))
    size, slots = prod(shape), 128
    kinds = ["random", "dense", "cyclic"]
    if len(shape) == 3:
        kinds += ["planes"] * 3 + ["samples"] * 3 * of_input
    match draw(st.sampled_from(kinds)):
        case "dense":
            return dense_pack(shape, slots)
        case "cyclic" if size <= slots:
            return cyclic_pack(shape, slots)
        case "planes":
            phases = draw(st.sampled_from([(1, 1), (2, 2), (1, 2)]))
            gap = draw(st.sampled_from([(1, 1), (2, 2), (1, 2)]))
            sides = [power_of_two(-(-n // p)) * g for n, p, g in zip(shape[1:], phases, gap, strict=True)]
            turn = draw(st.sampled_from([0, 1, 2]))
            return plane_pack(shape, Grid(*sides, *gap), 256, turn, phases, draw(st.booleans()))
        case "samples":
            axes = [Samples.phases(n, draw(st.integers(1, 3))) for n in shape[1:]]
            grid = Grid(*(power_of_two(axis.length) for axis in axes))
            return sample_pack(shape, *axes, grid, 256)
    return replace(random_layout(rng, size, -(-2 * size // slots), slots), shape=shape)


@quick
@given(st.data())
def test_kinds_of_terms_are_those_of_the_entries(data: st.DataObject) -> None:
    linear = data.draw(maps(data.draw(SHAPES), longest=2))
    source = data.draw(layouts(linear.in_shape, of_input=True))
    target = data.draw(layouts(linear.out_shape, of_input=False))
    modulus = data.draw(st.sampled_from([source.period, source.slots]))
    owner = np.arange((target.index >= 0).sum())
    if data.draw(st.booleans()):  # one accumulator an output, with a row for every copy
        element, row = np.arange(target.size), target.index[target.index >= 0]
    else:
        element, row = target.index[target.index >= 0], owner
    rows = PatternSet.of(element.size, row, *np.nonzero(target.index >= 0), modulus)
    reads = PatternSet.of(source.size, source.index[source.index >= 0], *np.nonzero(source.index >= 0), modulus)
    kinds = count_kinds(linear, element, rows, reads, modulus)

    counts: dict[tuple[int, int, int], int] = {}
    present = structure(linear)
    for accumulator, output in enumerate(element.tolist()):
        for read in np.flatnonzero(present[output]).tolist():
            distance = int(reads.moved[read] - rows.moved[accumulator]) % modulus
            key = int(rows.pattern[accumulator]), int(reads.pattern[read]), distance
            counts[key] = counts.get(key, 0) + 1
    found = zip(kinds.rows.tolist(), kinds.reads.tolist(), kinds.distance.tolist(), strict=True)
    assert dict(zip(found, kinds.weight.tolist(), strict=True)) == counts


@quick
@given(st.data())
def test_plaintexts_are_those_of_the_entries(data: st.DataObject) -> None:
    linear = data.draw(maps(data.draw(SHAPES), longest=2))
    source = data.draw(layouts(linear.in_shape, of_input=True))
    slots = source.slots
    target = random_layout(
        np.random.default_rng(data.draw(SEEDS)), linear.bias.size, -(-linear.bias.size // slots), slots
    )
    chosen = DiagonalProblem(linear, source, target).choose()
    plain = DiagonalProblem(written_out(linear), source, target).choose()
    assert chosen.diagonals == plain.diagonals
    for (diagonal, reads), (_, others) in zip(chosen.plaintexts(), plain.plaintexts(), strict=True):
        assert reads.tolist() == others.tolist()
        np.testing.assert_allclose(chosen.values(diagonal, reads), plain.values(diagonal, others), **close)

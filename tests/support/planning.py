"""Random maps and layouts, and the evaluation of what the planner makes of them by naive loops over integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from rings import tiny_parameters

from heinfer.circuit.interpret import run
from heinfer.circuit.ir import Circuit
from heinfer.layout.layout import FREE, ZERO, Layout
from heinfer.layout.packings import cyclic_pack, dense_pack
from heinfer.lowering.lower import lower
from heinfer.network.ir import INPUT
from heinfer.network.linear_map import LinearMap
from heinfer.planner.kernel.diagonals import DiagonalProblem, DiagonalSet
from heinfer.planner.kernel.linear import LinearPlan, linear_plans, regular_sets
from heinfer.planner.kernel.linear import diagonal_sets as small_sets
from heinfer.planner.plan import LinearStep, Plan, SquareStep

Integers = NDArray[np.int64]

SEEDS = st.integers(0, 2**32 - 1)


def diagonal_sets(problem: DiagonalProblem) -> list[DiagonalSet]:
    """Every set of diagonals that the planner looks at for a problem."""
    sets = small_sets(problem)
    return sorted(sets + regular_sets(problem, sets), key=len)


# Random cases ------------------------------------------------------------------------------------


def random_map(rng: np.random.Generator, inputs: int, outputs: int, density: float) -> LinearMap:
    """A sparse map of small integers, zeros among them: rows and columns may be empty, never all of them."""
    structure = rng.random((outputs, inputs)) < density
    structure[rng.integers(outputs), rng.integers(inputs)] = True
    rows, cols = np.nonzero(structure)
    values = rng.integers(-9, 10, rows.size).astype(float)
    bias = rng.integers(-9, 10, outputs).astype(float)
    return LinearMap.from_entries((inputs,), (outputs,), rows, cols, values, bias)


def random_layout(rng: np.random.Generator, elements: int, ciphertexts: int, slots: int, filled: float = 0.6) -> Layout:
    """Every element somewhere, some of them again, and ZERO and FREE slots between them."""
    places = rng.permutation(ciphertexts * slots)
    assert places.size >= elements
    index = np.where(rng.random(places.size) < 0.5, ZERO, FREE)
    copies = places[elements:][rng.random(places.size - elements) < filled / 2]
    index[copies] = rng.integers(0, elements, copies.size)
    index[places[:elements]] = np.arange(elements)
    return Layout((elements,), index.reshape(ciphertexts, slots))


def foldable_layout(
    rng: np.random.Generator, elements: int, ciphertexts: int, slots: int, gap: int, period: int
) -> Layout:
    """A target that reductions over gaps (1, 2, ... < gap) and cyclic ones (period, 2 period, ...) can complete."""
    anchors = random_layout(rng, elements, ciphertexts, period // gap)
    index = np.full((ciphertexts, period // gap, gap), FREE)
    index[:, :, 0] = anchors.index
    return Layout((elements,), np.tile(index.reshape(ciphertexts, period), (1, slots // period)))


def doublings(first: int, end: int) -> tuple[int, ...]:
    """first, 2 first, 4 first, ... below the end."""
    return tuple(first << i for i in range(end.bit_length()) if first << i < end)


@st.composite
def problems(draw: st.DrawFn, *, folded: bool = True) -> DiagonalProblem:
    """Any map between any layouts, with or without reductions that can complete it."""
    rng = np.random.default_rng(draw(SEEDS))
    slots = draw(st.sampled_from([8, 16, 32]))
    sources, targets = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    period = draw(st.sampled_from([slots, slots // 2, slots // 4])) if folded else slots
    gap = draw(st.sampled_from([1, 2])) if folded else 1
    inputs = draw(st.integers(1, sources * slots // 2))
    outputs = draw(st.integers(1, targets * (period // gap)))
    linear = random_map(rng, inputs, outputs, draw(st.sampled_from([0.05, 0.3, 1.0])))
    source_period = draw(st.sampled_from([slots, slots // 2]))
    if sources * source_period < inputs:
        source_period = slots
    source = random_layout(rng, inputs, sources, source_period)
    source = Layout(source.shape, np.tile(source.index, (1, slots // source_period)))
    target = foldable_layout(rng, outputs, targets, slots, gap, period)
    return DiagonalProblem(linear, source, target, doublings(1, gap) + doublings(period, slots))


# Naive evaluation --------------------------------------------------------------------------------


def dense_matrix(linear: LinearMap) -> NDArray[np.float64]:
    """The matrix of a map with all its zeros."""
    matrix, entries = np.zeros((prod(linear.out_shape), prod(linear.in_shape))), linear.entries
    matrix[entries.rows, entries.cols] = entries.values
    return matrix


def with_zeros(linear: LinearMap) -> LinearMap:
    """A map of the same structure whose values are all zero."""
    return replace(linear, stencils=tuple(replace(s, weights=0 * s.weights) for s in linear.stencils))


def naive_map(linear: LinearMap, x: Integers) -> Integers:
    """W x + bias, entry by entry."""
    y = linear.bias.astype(np.int64)
    entries = linear.entries
    for row, col, value in zip(entries.rows, entries.cols, entries.values, strict=True):
        y[row] += int(value) * x[col]
    return y


def naive_slots(chosen: DiagonalSet, slots: Integers) -> Integers:
    """Diagonals and reductions without bias, slot by slot."""
    problem = chosen.problem
    count = problem.target.slots
    sums = np.zeros(problem.target.index.shape, dtype=np.int64)
    for diagonal, reads in chosen.plaintexts():
        plaintext = chosen.values(diagonal, reads).astype(np.int64)
        for p in range(count):
            sums[diagonal.target, p] += plaintext[p] * slots[diagonal.source, (p + diagonal.shift) % count]
    for reduction in problem.reductions:
        sums = np.array([[row[p] + row[(p + reduction) % count] for p in range(count)] for row in sums])
    return sums


def integer_input(linear: LinearMap, rng: np.random.Generator) -> Integers:
    return rng.integers(-9, 10, prod(linear.in_shape))


def packed_with_garbage(layout: Layout, x: Integers, rng: np.random.Generator) -> Integers:
    """The slots of a flattened tensor, with anything at all in those that nobody may read."""
    slots = layout.pack(x.reshape(layout.shape).astype(float)).astype(np.int64)
    return np.where(layout.index == FREE, rng.integers(-(10**6), 10**6, layout.index.shape), slots)


def untrue_slots(layout: Layout, y: Integers, slots: NDArray[np.float64] | Integers) -> list[tuple[int, int]]:
    """The (ciphertext, slot)s that do not hold what a layout says they hold."""
    claimed = layout.pack(y.reshape(layout.shape).astype(float))
    wrong = (layout.index != FREE) & (claimed != slots)
    return [(int(c), int(s)) for c, s in np.argwhere(wrong)]


# Laws --------------------------------------------------------------------------------------------


def without_bias(linear: LinearMap) -> LinearMap:
    return linear.with_bias_added(-linear.bias)


def assert_adds_each_term_once(chosen: DiagonalSet) -> None:
    """Every accumulator gets each entry of its output's row exactly once, and reads it where the source has it."""
    problem = chosen.problem
    rows, elements = problem.accumulators.row, problem.accumulators.element
    weight = dense_matrix(problem.map)
    added: Counter[tuple[int, int]] = Counter()
    for diagonal, reads in chosen.plaintexts():
        values = chosen.values(diagonal, reads)
        for p in np.flatnonzero(reads >= 0):
            read, accumulator = int(reads[p]), int(rows[diagonal.target, p])
            assert problem.source.index[diagonal.source, (p + diagonal.shift) % problem.source.slots] == read
            assert values[p] == weight[elements[accumulator], read]
            added[accumulator, read] += 1
    entries = problem.map.entries
    wanted = {
        (accumulator, int(read))
        for accumulator, element in enumerate(elements)
        for read in entries.cols[entries.rows == element]
    }
    assert set(added) == wanted
    assert set(added.values()) <= {1}


def assert_result_is_true(chosen: DiagonalSet, seed: int) -> None:
    """Every slot that the result names holds the complete element, every ZERO slot zero."""
    problem = chosen.problem
    rng = np.random.default_rng(seed)
    x = integer_input(problem.map, rng)
    slots = naive_slots(chosen, packed_with_garbage(problem.source, x, rng))
    result = chosen.result_layout()
    assert not untrue_slots(result, naive_map(without_bias(problem.map), x), slots)
    promised = problem.target.index != FREE
    assert np.array_equal(result.index[promised], problem.target.index[promised])


# By hand what the search does ---------------------------------------------------------------------


def all_plans(chosen: DiagonalSet) -> Iterator[LinearPlan]:
    """Every cover and every place for the rescale."""
    yield from linear_plans(chosen, "", last=False)


def lowered(plan: LinearPlan) -> Circuit:
    """The circuit of one affine layer."""
    source = plan.problem.source
    return lower(Plan(tiny_parameters(2 * source.slots), 1, source, "", (LinearStep("layer", plan, 1, (INPUT,)),)))


def evaluated(plan: LinearPlan, slots: Integers) -> Integers:
    """The slots that the circuit of one layer computes; exact, as its integers are small."""
    return run(lowered(plan), slots[None].astype(float))[0].astype(np.int64)


def plans_of(problem: DiagonalProblem) -> list[LinearPlan]:
    """Every plan of the smallest sets of diagonals."""
    return [plan for chosen in small_sets(problem)[:2] for plan in all_plans(chosen)]


def two_layers(bias: bool = True) -> tuple[Plan, LinearMap, LinearMap]:
    """A map, a square and a map by hand: 4 numbers, 3 numbers in two ciphertexts, 2 numbers."""
    rng = np.random.default_rng(3)
    first, second = random_map(rng, 4, 3, 1.0), random_map(rng, 3, 2, 1.0)
    if not bias:
        first, second = (m.with_bias_added(-m.bias) for m in (first, second))
    middle = Layout((3,), np.array([[0, 1, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO], [2] * 8]))
    one = plans_of(DiagonalProblem(first, cyclic_pack((4,), 8), middle))[0]
    two = plans_of(DiagonalProblem(second, one.target, dense_pack((2,), 8)))[0]
    steps = (LinearStep("one", one, 3, (INPUT,)), SquareStep("square", 2, (0,)), LinearStep("two", two, 1, (1,)))
    return Plan(tiny_parameters(16, (28, 26, 26, 26)), 3, cyclic_pack((4,), 8), "input", steps), first, second

"""Small random networks of every operator, chains and others, and the planning of them at tiny rings."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from rings import tiny_parameters

from heinfer.circuit.interpret import run
from heinfer.circuit.ir import Circuit
from heinfer.circuit.passes import mark_hoisting, merge_common_subexpressions, remove_dead_code
from heinfer.circuit.validate import validate_structure
from heinfer.errors import ShapeError
from heinfer.layout.packings import power_of_two
from heinfer.lowering.lower import lower
from heinfer.network.ir import INPUT, Network, Node
from heinfer.network.joints import Add, Concat, Joint, Product
from heinfer.network.operators import (
    AveragePool,
    ChannelAffine,
    Convolution,
    Dense,
    Flatten,
    Operator,
    Polynomial,
    Square,
)
from heinfer.planner.plan import Plan
from heinfer.planner.search.search import plan_network

SEEDS = st.integers(0, 2**32 - 1)
Array = NDArray[np.float64]


def convolution(
    rng: np.random.Generator,
    c_in: int,
    c_out: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
) -> Convolution:
    """A square convolution with random weights of a size that keeps values near one."""
    fan_in = c_in // groups * kernel * kernel
    weight = rng.normal(size=(c_out, c_in // groups, kernel, kernel)) / np.sqrt(fan_in)
    bias = rng.normal(size=c_out)
    return Convolution(weight, bias, (stride, stride), (padding, padding), (dilation, dilation), groups)


def polynomial(rng: np.random.Generator, channels: int) -> Polynomial:
    return Polynomial(rng.uniform(0.1, 0.4, channels), rng.normal(size=channels), rng.normal(size=channels))


def batch_norm(rng: np.random.Generator, channels: int) -> ChannelAffine:
    return ChannelAffine(rng.uniform(0.5, 1.5, channels), rng.normal(size=channels))


def dense(rng: np.random.Generator, inputs: int, outputs: int) -> Dense:
    return Dense(rng.normal(size=(outputs, inputs)) / np.sqrt(inputs), rng.normal(size=outputs))


def chain(input_shape: tuple[int, ...], *operators: Operator) -> Network:
    """A network whose nodes are named after their operators."""
    nodes = (Node(f"{type(op).__name__.lower()}{i}", op) for i, op in enumerate(operators))
    return Network(input_shape, tuple(nodes))


def _drawn_convolution(
    draw: st.DrawFn, rng: np.random.Generator, shape: tuple[int, ...], widest: int
) -> list[Operator]:
    c_in, c_out = shape[0], draw(st.integers(1, widest))
    kernel, stride, padding = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    dilation = draw(st.sampled_from([1, 1, 2]))
    if draw(st.booleans()):  # the two halves of an FFConv
        rank = draw(st.integers(1, 2))
        return [
            convolution(rng, c_in, rank, kernel, stride, padding, dilation=dilation),
            convolution(rng, rank, c_out, 1),
        ]
    groups = draw(st.sampled_from([g for g in range(1, c_in + 1) if c_in % g == 0]))
    c_out = groups * max(1, c_out // groups)
    return [convolution(rng, c_in, c_out, kernel, stride, padding, groups, dilation)]


def _drawn(draw: st.DrawFn, rng: np.random.Generator, shape: tuple[int, ...], widest: int = 5) -> list[Operator]:
    match draw(st.sampled_from(["convolution", "convolution", "activation", "activation", "norm", "pool", "square"])):
        case "convolution":
            return _drawn_convolution(draw, rng, shape, widest)
        case "activation":
            return [polynomial(rng, draw(st.sampled_from([1, shape[0]])))]
        case "norm":
            return [batch_norm(rng, shape[0])]
        case "square":
            return [Square()]
        case _:
            size, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
            return [AveragePool((size, size), (stride, stride))]


@st.composite
def networks(draw: st.DrawFn, *, most: int = 5, side: int = 10, widest: int = 5, least: int = 4) -> Network:
    """Convolutions, FFConv pairs, activations, batch norms and pools in any order, often ending flat."""
    rng = np.random.default_rng(draw(SEEDS))
    input_shape = (draw(st.integers(1, 3)), draw(st.integers(least, side)), draw(st.integers(least, side)))
    operators: list[Operator] = []
    shape: tuple[int, ...] = input_shape
    for _ in range(draw(st.integers(1, most))):
        tried = _drawn(draw, rng, shape, widest)
        try:
            shape = chain(shape, *tried).output_shape
        except ShapeError:  # a kernel larger than what is left
            continue
        operators += tried
    if draw(st.booleans()) or not operators:
        operators += [Flatten(), dense(rng, prod(shape), draw(st.integers(1, 6)))]
    return chain(input_shape, *operators)


def branching(input_shape: tuple[int, ...], *nodes: tuple[Operator | Joint, *tuple[int, ...]]) -> Network:
    """A network of operators with the positions of the nodes that they read, named after the operators."""
    named = (Node(f"{type(op).__name__.lower()}{i}", op, tuple(reads)) for i, (op, *reads) in enumerate(nodes))
    return Network(input_shape, tuple(named))


class _Growing:
    """A network under construction; every method returns a position, that of its argument where nothing fits."""

    def __init__(
        self, draw: st.DrawFn, rng: np.random.Generator, input_shape: tuple[int, ...], widest: int = 5
    ) -> None:
        self.draw, self.rng, self.widest = draw, rng, widest
        self.nodes: list[tuple[Operator | Joint, *tuple[int, ...]]] = []
        self.shapes = {INPUT: input_shape}

    def put(self, operator: Operator | Joint, *reads: int) -> int:
        nodes = [*self.nodes, (operator, *reads)]
        self.shapes[len(self.nodes)] = branching(self.shapes[INPUT], *nodes).output_shape
        self.nodes = nodes
        return len(nodes) - 1

    def after(self, x: int) -> int:
        """Any operator of one tensor, or several."""
        for operator in _drawn(self.draw, self.rng, self.shapes[x], self.widest):
            try:
                x = self.put(operator, x)
            except ShapeError:  # a kernel larger than what is left
                break
        return x

    def branch(self, x: int) -> int:
        """As large as x: nothing, or one or two convolutions with an activation or not."""
        channels = self.shapes[x][0]
        for _ in range(self.draw(st.integers(0, 2))):
            x = self.put(convolution(self.rng, channels, channels, 3, 1, 1), x)
            if self.draw(st.booleans()):
                x = self.put(polynomial(self.rng, channels), x)
        return x

    def block(self, x: int) -> int:
        """Two or three branches, which a block may follow inside, and their sum or concatenation."""
        ends = [self.branch(x) for _ in range(self.draw(st.integers(2, 3)))]
        if self.draw(st.integers(0, 3)) == 0:
            ends.append(self.put(Add(), ends[0], ends[-1]))
        return self.put(self.draw(st.sampled_from([Add(), Concat()])), *ends)

    def gate(self, x: int) -> int:
        """Two branches and their product, and perhaps that of it and a third."""
        x = self.put(Product(), self.branch(x), self.branch(x))
        return self.put(Product(), self.branch(x), x) if self.draw(st.integers(0, 3)) == 0 else x


@st.composite
def branching_networks(
    draw: st.DrawFn, *, blocks: int = 2, side: int = 6, widest: int = 5, least: int = 4, products: bool = False
) -> Network:
    """Residual and other blocks with operators around them; the end may join what was left open on the way.

    Args:
        products: whether the branches of some blocks are multiplied.
    """
    rng = np.random.default_rng(draw(SEEDS))
    input_shape = (draw(st.integers(1, 2)), draw(st.integers(least, side)), draw(st.integers(least, side)))
    growing = _Growing(draw, rng, input_shape, widest)
    kept = [growing.after(INPUT)]
    for _ in range(draw(st.integers(1, blocks))):
        multiplied = products and draw(st.booleans())
        kept.append(growing.gate(kept[-1]) if multiplied else growing.block(kept[-1]))
        if draw(st.booleans()):
            kept.append(growing.after(kept[-1]))
    ends = {kept[-1], draw(st.sampled_from(kept))} - {INPUT}
    flat = [growing.put(Flatten(), end) for end in sorted(ends)]
    joined = growing.put(Concat(), *flat)
    growing.put(dense(rng, growing.shapes[joined][0], draw(st.integers(1, 4))), joined)
    return branching(growing.shapes[INPUT], *growing.nodes)


def inputs_for(network: Network, batch: int = 2, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(batch, *network.input_shape))


def planned(folded: Network, slots: int) -> Plan:
    """A plan at a ring of so many slots, which no security check has seen."""
    return plan_network(folded, tiny_parameters(2 * slots, (28,) + (26,) * len(folded.nodes)))


def slots_for(folded: Network) -> int:
    """The fewest slots, 32 at least, that hold one plane of any tensor of the network."""
    shapes = [shape for shape in (folded.input_shape, *folded.shapes) if len(shape) == 3]
    return max(32, *(power_of_two(height) * power_of_two(width) for _, height, width in shapes))


def circuit_of(plan: Plan) -> Circuit:
    return mark_hoisting(remove_dead_code(merge_common_subexpressions(lower(plan))))


def assert_runs(network: Network, plan: Plan) -> Circuit:
    """The circuit of a plan, for one image or a batch, computes the network and hides partial sums."""
    circuit = circuit_of(plan)
    validate_structure(circuit)
    x = inputs_for(network)
    expected = network(x)
    got = plan.output.unpack(run(circuit, plan.input.pack(plan.in_batches(x)))).reshape(-1, *expected.shape[1:])
    got = got[: len(x)]
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    assert not plan.output.has_free_slots
    assert not plan.input.has_free_slots
    return circuit

"""Folding: any network becomes affine maps, squares, products and Chebyshev series of u in [-2, 2], nothing else.

A polynomial a x^2 + b x + c is a (x + b/2a)^2 + (c - b^2/4a): its shift joins the map before it,
its factor and constant the map after it, and what remains is a square, which costs one level.
A Chebyshev series of x is one of 2 (x - center) / radius, and that map joins the one before it; its value needs no map
after it. Maps that only move elements (batch normalisation, reshapes, permutations, selections, padding, copies) join a
neighbour: the map after them always, as that reads no more for it, and the map before them where that has no more
entries for it, which copies would give it. Two maps that both mix elements
(a pool and a convolution, the two halves of an FFConv) stay two: merging them is a question of cost.

Where branches meet, a sum or a concatenation takes the maps that end in it with it: f(x) + g(x) is (F + G) x, one map
of one tensor, when F and G are linear, and a sum of maps of the branches' last squares otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from heinfer.network.ir import INPUT, Network, Node
from heinfer.network.joints import AffineSum, LinearJoint, Product
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, Chebyshev, Linear, Polynomial, Square, per_channel
from heinfer.network.structure import structured
from heinfer.network.terms import Terms, collected, composed, operator_of, substituted


def fold(network: Network) -> Network:
    """Return an equal network of Affine, AffineSum, Square, Product and Chebyshev nodes.

    Only maps read its input and make its output.

    What does not lead to the output is left out.
    """
    graph = _Graph.of(network)
    graph.join_shared_with_previous()
    graph.absorb_into_joints()
    graph.join_with_next()
    graph.join_with_previous()
    return graph.network(network.input_shape)


@dataclass(frozen=True, eq=False)
class _Item:
    """A map (terms), or a square or product (of tensors to which ``terms`` has no map).

    Attributes:
        factors: of a product; the one that is squared, or that a series is of; none of a map.
        series: what is made of its one factor instead of its square.
        joins: whether it may go into any neighbour.
        joint: whether it is a sum or concatenation that no mixing map has gone into.
    """

    name: str
    terms: Terms
    factors: tuple[int, ...] = ()
    series: Chebyshev | None = None
    joins: bool = False
    joint: bool = False

    @property
    def reads(self) -> tuple[int, ...]:
        return self.factors or tuple(source for source, _ in self.terms)

    @property
    def is_map(self) -> bool:
        return not self.factors


class _Graph:
    """The items of a network by their numbers, each after what it reads; the last makes the output."""

    def __init__(self) -> None:
        self.items: dict[int, _Item] = {}
        self._input: int | None = None
        self._copied: set[int] = set()  # tensors that a sum reads several times over: to make them there would be dear

    @classmethod
    def of(cls, network: Network) -> _Graph:
        graph, made, shapes = cls(), {INPUT: INPUT}, {INPUT: network.input_shape}
        for position, (node, reads) in enumerate(zip(network.nodes, network.reads, strict=True)):
            made[position] = graph._append(node, [made[i] for i in reads], [shapes[i] for i in reads])
            shapes[position] = network.shapes[position]
        last = made[len(network.nodes) - 1]
        if last == INPUT or not graph.items[last].is_map:
            last = graph._add(_map("output", last, _identity(network.output_shape), joins=True))
        graph._keep_only_what_leads_to(last)
        return graph

    def _append(self, node: Node, inputs: list[int], shapes: list[tuple[int, ...]]) -> int:
        name, source, shape = node.name, inputs[0], shapes[0]
        match node.operator:
            case Polynomial() as polynomial:
                before, after = _split(polynomial, shape)
                square = self._product(name, self._add(_map(name, source, before, joins=True)))
                return self._add(_map(name, square, after, joins=True))
            case Chebyshev() as series:
                return self._series(name, source, series, shape)
            case Square():
                return self._product(name, self._factor(source, shape))
            case Product():
                return self._product(name, *dict.fromkeys(self._factor(source, shape) for source in inputs))
            case Linear() as linear:
                found = linear.linear_map(shape)
                found = structured(found) if isinstance(linear, Affine) else found
                return self._add(_map(name, source, found, joins=found.only_moves))
            case LinearJoint() as joint:
                terms = collected(zip(inputs, joint.linear_maps(shapes), strict=True))
                return self._add(_Item(name, terms, joint=True))
            case other:
                raise TypeError(f"{name}: folding does not know {type(other).__name__}")

    def _add(self, item: _Item) -> int:
        number = len(self.items)
        self.items[number] = item
        return number

    def _product(self, name: str, *factors: int) -> int:
        return self._add(_Item(name, (), factors=factors))

    def _series(self, name: str, source: int, series: Chebyshev, shape: tuple[int, ...]) -> int:
        center, radius = (per_channel(v, shape) for v in (series.center, series.radius))
        if series.degree == 1:
            shift, slope = (per_channel(v, shape) for v in series.coefficients.T)
            line = LinearMap.diagonal(shape, slope / radius, shift - slope * center / radius)
            return self._add(_map(name, source, line, joins=True))
        before = LinearMap.diagonal(shape, 2 / radius, -2 * center / radius)
        inside = self._add(_map(name, source, before, joins=True))
        normal = replace(series, center=np.zeros(1), radius=np.full(1, 2.0))
        return self._add(_Item(name, (), factors=(inside,), series=normal))

    def _factor(self, source: int, shape: tuple[int, ...]) -> int:
        """What may be multiplied: the input only as a map of it, which may lay it out anew."""
        if source != INPUT:
            return source
        if self._input is None:
            self._input = self._add(_map("input", INPUT, _identity(shape), joins=True))
        return self._input

    def _keep_only_what_leads_to(self, last: int) -> None:
        needed = {last}
        for number in sorted(self.items, reverse=True):
            if number in needed:
                needed |= set(self.items[number].reads)
        self.items = {number: item for number, item in self.items.items() if number in needed}

    @property
    def _readers(self) -> Counter[int]:
        return Counter(source for item in self.items.values() for source in item.reads)

    def _is_map(self, number: int) -> bool:
        return number != INPUT and self.items[number].is_map

    def join_shared_with_previous(self) -> None:
        """A map that joins a neighbour and is read by several goes into the map before it, to be made only once."""
        for number in list(self.items):
            if self._readers[number] > 1:
                self._go_into_previous(number)

    def absorb_into_joints(self) -> None:
        """What ends in a sum or concatenation goes into it: other joints, maps that join, then the first that mixes."""
        for takes in (_is_joint, _is_anything):
            for number in [n for n, item in self.items.items() if item.joint]:
                item = self.items[number]
                mixers: list[str] = []
                terms = self._absorbed(item.terms, self._readers, mixers, takes, alone=True)
                name = "+".join([*dict.fromkeys(mixers), item.name])
                joins = len(terms) == 1 and not mixers and terms[0][1].only_moves
                self.items[number] = replace(item, name=name, terms=terms, joins=joins, joint=not mixers)
            self._keep_only_what_leads_to(max(self.items))

    def _absorbed(
        self, terms: Terms, readers: Counter[int], mixers: list[str], takes: Callable[[_Item], bool], *, alone: bool
    ) -> Terms:
        """Terms with the maps that they read replaced by what these read; collects the names of those that mix.

        Args:
            takes: which maps may be replaced besides those that join: only such as nothing else reads.
            alone: whether nothing else reads the terms.
        """
        found: list[tuple[int, LinearMap]] = []
        for source, linear in terms:
            inner = self.items.get(source)
            only = alone and readers[source] == 1
            may = _is_nothing if source in self._copied else takes
            if inner is None or not inner.is_map or not (inner.joins or (only and may(inner))):
                found.append((source, linear))
                continue
            mixes = not (inner.joins or inner.joint)
            if mixes:
                mixers.append(inner.name)
            if only:
                del self.items[source]
            further = _is_nothing if mixes else takes
            if not inner.joint and any(moved.readers.max(initial=0) > 1 for _, moved in inner.terms):
                self._copied.update(inner.reads)
            found += self._absorbed(composed(inner.terms, linear), readers, mixers, further, alone=only)
        return collected(found)

    def join_with_next(self) -> None:
        """A map that joins a neighbour goes into the maps that read it; it is made for products that do, too."""
        for number in list(self.items):
            item = self.items[number]
            readers = [n for n, reader in self.items.items() if number in reader.reads]
            maps = [n for n in readers if self._is_map(n)]
            if not item.joins or not maps:
                continue
            for n in maps:
                reader = self.items[n]
                name = item.name if reader.joins else reader.name
                self.items[n] = replace(reader, name=name, terms=substituted(reader.terms, number, item.terms))
            if maps == readers:
                del self.items[number]

    def join_with_previous(self) -> None:
        """What is left of them, the shifts of activations above all, goes into the map before it.

        The parts of a map that is read only in parts, such as the halves that a gate multiplies, are maps each.
        """
        for number in list(self.items):
            self._go_into_previous(number)
        for number in list(self.items):
            readers = [item for item in self.items.values() if number in item.reads]
            parts = [item.terms[0][1] for item in readers if item.joins and len(item.terms) == 1]
            if (
                self._is_map(number)
                and len(parts) == len(readers) > 1
                and _is_no_dearer(self.items[number].terms, parts)
            ):
                previous = self.items.pop(number)
                for n, item in self.items.items():
                    if number in item.reads:
                        name = f"{previous.name}+{item.name}"
                        self.items[n] = replace(previous, name=name, terms=composed(previous.terms, item.terms[0][1]))

    def _go_into_previous(self, number: int) -> None:
        item = self.items[number]
        if not item.joins or len(item.terms) > 1:
            return
        [(source, linear)] = item.terms
        if self._is_map(source) and self._readers[source] == 1 and _is_no_dearer(self.items[source].terms, [linear]):
            previous = self.items.pop(source)
            self.items[number] = replace(previous, terms=composed(previous.terms, linear))

    def network(self, input_shape: tuple[int, ...]) -> Network:
        positions = {INPUT: INPUT} | {number: position for position, number in enumerate(self.items)}
        nodes = []
        for number, item in self.items.items():
            inputs = tuple(positions[source] for source in item.reads)
            nodes.append(Node(item.name, _operator(item), None if inputs == (positions[number] - 1,) else inputs))
        return Network(input_shape, tuple(nodes))


def _operator(item: _Item) -> Affine | AffineSum | Square | Product | Chebyshev:
    if item.is_map:
        return operator_of(item.terms)
    if item.series is not None:
        return item.series
    return Square() if len(item.factors) == 1 else Product()


def _is_no_dearer(before: Terms, moved: Sequence[LinearMap]) -> bool:
    """Whether maps have no more entries when what they make is only moved, instead by each of several maps."""
    readers = sum(linear.readers for linear in moved)
    return all(int((linear.reads * readers).sum()) <= linear.size for _, linear in before)


def _is_joint(item: _Item) -> bool:
    return item.joint


def _is_anything(_: _Item) -> bool:
    return True


def _is_nothing(_: _Item) -> bool:
    return False


def _map(name: str, source: int, linear: LinearMap, *, joins: bool) -> _Item:
    return _Item(name, ((source, linear),), joins=joins)


def _split(polynomial: Polynomial, shape: tuple[int, ...]) -> tuple[LinearMap, LinearMap]:
    """The maps before and after the square of a polynomial."""
    a, b, c = (per_channel(v, shape) for v in (polynomial.a, polynomial.b, polynomial.c))
    before = LinearMap.diagonal(shape, np.ones(prod(shape)), b / (2 * a))
    return before, LinearMap.diagonal(shape, a, c - b * b / (4 * a))


def _identity(shape: tuple[int, ...]) -> LinearMap:
    return LinearMap.diagonal(shape, np.ones(prod(shape)), np.zeros(prod(shape)))

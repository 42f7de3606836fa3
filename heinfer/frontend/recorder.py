"""The network as it grows: values are placed as nodes when something reads them as a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numpy.polynomial.chebyshev import poly2cheb

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.values import FAR, Term, Value, moved
from heinfer.network.ir import INPUT, Network, Node
from heinfer.network.join import Index
from heinfer.network.joints import AffineSum, Joint, Product
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import (
    Affine,
    ChannelAffine,
    Chebyshev,
    Flatten,
    Operator,
    Polynomial,
    Square,
    per_channel,
)
from heinfer.network.pairs import Vector
from heinfer.network.windows import selection_map

Shape = tuple[int, ...]


class Recorder:
    """Nodes in order, and the shapes of what they make.

    Attributes:
        batch: inputs that the graph was made of.
        name: of the nodes that are added: the path of the call at hand.
    """

    def __init__(self, input_shape: Shape, batch: int) -> None:
        self.input_shape = input_shape
        self.batch = batch
        self.nodes: list[Node] = []
        self.shapes: dict[int, Shape] = {INPUT: input_shape}
        self.name = ""

    @property
    def input(self) -> Value:
        return Value.of(INPUT, (self.batch, *self.input_shape))

    def add(self, operator: Operator | Joint, reads: Sequence[int]) -> Value:
        """A node; ShapeError when it does not take what it reads."""
        shapes = [self.shapes[i] for i in reads]
        shape = operator.output_shape(shapes) if isinstance(operator, Joint) else operator.output_shape(shapes[0])
        position = len(self.nodes)
        inputs = None if tuple(reads) == (position - 1,) else tuple(reads)
        self.nodes.append(Node(self.name, operator, inputs))
        self.shapes[position] = shape
        return Value.of(position, (self.batch, *shape))

    def unknown(self, shape: Shape) -> Value:
        """What a call gives that is refused: the calls after it are looked at all the same."""
        position = len(self.nodes)
        self.nodes.append(Node(self.name, Square()))
        self.shapes[position] = shape
        return Value.of(position, (self.batch, *shape))

    def placed(self, value: Value) -> tuple[int, Shape]:
        """Position and shape of the node that makes a value, added unless it is there already; (1,) for a number."""
        if value.shape == (self.batch,):
            value = moved(lambda v: v.unsqueeze(1), [value])
        shape = value.shape[1:]
        if not value.shape or value.shape[0] != self.batch:
            raise UnsupportedOperatorError(
                f"reads a tensor of shape {value.shape} for {self.batch} inputs, whose first axis is not the batch: "
                "keep the first axis for the batch alone"
            )
        if not value.terms:
            raise UnsupportedOperatorError("reads what does not depend on the input of the network")
        before, self.name = self.name, value.name or self.name
        try:
            return self._placed(value, shape), shape
        finally:
            self.name = before

    def _placed(self, value: Value, shape: Shape) -> int:
        if value.degree > 1 and len(value.terms) > 1:
            value = self._each_placed(value)
        if value.degree > 1:
            return self._polynomial(value)
        [first, *others] = value.terms
        if not others and self._is_whole(first, shape) and _is(value.constant, 0) and _is(first.coefficients[0], 1):
            return first.base
        return self._affine(value, shape)

    def again(self, value: Value) -> Value:
        """The same value as the tensor of one node."""
        position, shape = self.placed(value)
        found = Value.of(position, (self.batch, *shape))
        return found if found.shape == value.shape else _reshaped(found, value.shape)

    def network(self, value: Value) -> Network:
        """The nodes up to the one that makes the output, which nothing may follow."""
        last, _ = self.placed(value)
        return Network(self.input_shape, tuple(self.nodes[: last + 1]))

    def _is_whole(self, term: Term, shape: Shape) -> bool:
        return self.shapes[term.base] == shape and _is_in_order(term)

    def _each_placed(self, value: Value) -> Value:
        """The terms of a higher degree as terms of tensors of their own."""
        found: list[Term] = []
        for term in value.terms:
            if term.degree == 1:
                found.append(term)
            else:
                zero = torch.zeros_like(value.constant)
                found += self.again(Value((term,), zero, value.name)).terms
        return Value(tuple(found), value.constant)

    def _affine(self, value: Value, shape: Shape) -> int:
        scales = [_of_one(term.coefficients[0], "factors") for term in value.terms]
        shift = _of_one(value.constant, "constants")
        bases = [term.base for term in value.terms]
        if len(bases) == 1 and self._is_whole(value.terms[0], shape):
            by_channel = _by_channel(scales[0], shape), _by_channel(shift, shape)
            if by_channel[0] is not None and by_channel[1] is not None:
                return _position(self.add(ChannelAffine(by_channel[0], by_channel[1]), bases))
        is_flat = len(bases) == 1 and shape == (prod(self.shapes[bases[0]]),)
        if is_flat and value.is_moved and _is_in_order(value.terms[0]):
            return _position(self.add(Flatten(), bases))
        maps = [
            selection_map(
                self.shapes[term.base],
                shape,
                self._source(term),
                scale.reshape(-1),
                shift.reshape(-1) if number == 0 else np.zeros(shift.size),
            )
            for number, (term, scale) in enumerate(zip(value.terms, scales, strict=True))
        ]
        reads: dict[int, LinearMap] = {}
        for base, linear in zip(bases, maps, strict=True):
            reads[base] = reads[base].plus(linear) if base in reads else linear
        if len(reads) == 1:
            return _position(self.add(Affine(reads[bases[0]]), bases[:1]))
        return _position(self.add(AffineSum(tuple(reads.values())), list(reads)))

    def _source(self, term: Term) -> Index:
        """The flat place that every output reads, -1 for none; the same for every input of the batch."""
        place = term.place.numpy().reshape(self.batch, -1)
        size, first = prod(self.shapes[term.base]), place[0]
        further = np.where(first > 0, float(size), 0.0)
        if (first > size).any() or any(
            not np.array_equal(row, first + number * further) for number, row in enumerate(place[1:], 1)
        ):
            raise UnsupportedOperatorError(
                "mixes the inputs of a batch: each must be computed by itself; keep the first axis for the batch alone"
            )
        return np.array(first, dtype=np.int64) - 1

    def _polynomial(self, value: Value) -> int:
        """A polynomial of degree 2 or more: the elements that it reads first, where these are not a tensor's own."""
        [term] = value.terms
        shape = value.shape[1:]
        coefficients = [_of_one(c, "factors") for c in (value.constant, *term.coefficients)]
        base = term.base
        if not self._is_whole(term, shape):
            one = (term.place > 0).to(torch.float64)
            base = self._affine(Value((Term(base, term.place, (one,)),), torch.zeros_like(one)), shape)
        found = [_by_channel(c, shape) for c in coefficients]
        if any(c is None for c in found):
            flat = self._affine_flat(base, shape)
            made = self._power_series(flat, [c.reshape(-1) for c in coefficients])
            return self._affine(_reshaped(made, (self.batch, *shape)), shape)
        return _position(self._power_series(base, [c for c in found if c is not None]))

    def _affine_flat(self, base: int, shape: Shape) -> int:
        return base if len(shape) == 1 else _position(self.add(Flatten(), [base]))

    def _power_series(self, base: int, coefficients: Sequence[Vector]) -> Value:
        """sum_k coefficients[k] x^k of a tensor x, channel by channel.

        A quadratic a x^2 + b x + c is computed as a (x + b / 2a)^2 and a constant where |b / 2a| is at most FAR:
        beyond, the constants that cancel would cost more bits than that.
        """
        if len(coefficients) > 3:
            powers = np.stack(np.broadcast_arrays(*coefficients), axis=1)
            series = np.zeros_like(powers)
            for row, c in zip(series, powers, strict=True):
                found = poly2cheb(c)  # without the zeros at its end
                row[: len(found)] = found
            return self.add(Chebyshev(series, np.zeros(1), np.ones(1)), [base])
        c, b, a = np.broadcast_arrays(*coefficients)
        if not b.any() and not c.any() and (a == 1).all():
            return self.add(Square(), [base])
        if a.all() and (np.abs(b) <= 2 * FAR * np.abs(a)).all():
            return self.add(Polynomial(np.array(a), np.array(b), np.array(c)), [base])
        square = self.add(Square(), [base])
        shape = self.shapes[base]
        maps = [
            LinearMap.diagonal(shape, per_channel(x, shape), per_channel(y, shape)) for x, y in ((a, c), (b, 0 * c))
        ]
        return self.add(AffineSum(tuple(maps)), [_position(square), base])

    def product(self, one: Value, other: Value) -> Value:
        """The product of two values of one shape, element by element."""
        first, _ = self.placed(one)
        second, _ = (first, ()) if one is other else self.placed(other)
        made = self.add(Square(), [first]) if first == second else self.add(Product(), [first, second])
        return made if made.shape == one.shape else _reshaped(made, one.shape)


def _position(value: Value) -> int:
    return value.terms[0].base


def _reshaped(value: Value, whole: Shape) -> Value:
    [term] = value.terms
    return Value(
        (Term(term.base, term.place.reshape(whole), (term.coefficients[0].reshape(whole),)),),
        value.constant.reshape(whole),
    )


def _is(x: torch.Tensor, number: float) -> bool:
    return bool((x == number).all())


def _is_in_order(term: Term) -> bool:
    """Whether a term reads every element of a tensor, each once and in order."""
    flat = term.place.reshape(-1)
    return bool((flat == torch.arange(1, flat.numel() + 1, dtype=flat.dtype)).all())


def _of_one(x: torch.Tensor, what: str) -> Vector:
    """Of one input of the batch; all must have the same."""
    if any(not torch.equal(x[0], other) for other in x[1:]) and (x.nan_to_num() != x[:1].nan_to_num()).any():
        raise UnsupportedOperatorError(f"has {what} that differ between inputs of a batch: make them the same for all")
    return np.array(x[0].numpy(), dtype=np.float64)


def _by_channel(x: Vector, shape: Shape) -> Vector | None:
    """One number a channel; None where elements of a channel differ."""
    if not shape:
        return None
    rows = x.reshape(shape[0], -1)
    return np.array(rows[:, 0]) if (rows == rows[:, :1]).all() else None

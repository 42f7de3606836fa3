"""What a tensor of a graph is made of, before anything is computed: polynomials of elements of earlier tensors.

Slices, permutations, pads, concatenations, sums with and products by constants only move and scale elements. They need
no operator of their own: the same function runs on the places of elements, and on their factors. What is left of a
chain of them is one selection, which is placed as a node when a layer reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from heinfer.network.operators import MOST_DEGREE


@dataclass(frozen=True, eq=False)
class Term:
    """sum_k coefficients[k - 1] base[place]^k, element by element.

    Attributes:
        base: position of the node that makes the tensor it reads, INPUT for the input.
        place: 1 + the flat place of the element read, input after input of the batch; 0 where none is read. Float64,
            which every function takes.
        coefficients: of the powers 1, 2, ...; zero where nothing is read.
    """

    base: int
    place: Tensor
    coefficients: tuple[Tensor, ...]

    @property
    def degree(self) -> int:
        return len(self.coefficients)

    def times(self, factor: Tensor) -> Term:
        return replace(self, coefficients=tuple(c * factor for c in self.coefficients))


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor (batch, *shape): the sum of some terms and a constant.

    Attributes:
        name: of the node that makes it, once there is one.
    """

    terms: tuple[Term, ...]
    constant: Tensor
    name: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole batch."""
        return tuple(self.constant.shape)

    @property
    def degree(self) -> int:
        return max((term.degree for term in self.terms), default=0)

    @property
    def is_moved(self) -> bool:
        """Whether its elements are those of one tensor, which costs nothing to do again."""
        if len(self.terms) != 1 or self.degree > 1 or self.constant.any():
            return False
        return bool((self.terms[0].coefficients[0] == 1).all())

    @classmethod
    def of(cls, base: int, whole: tuple[int, ...]) -> Value:
        """The tensor (batch, *shape) that a node makes."""
        size = torch.Size(whole).numel()
        place = torch.arange(1, size + 1, dtype=torch.float64).reshape(whole)
        one = torch.ones((), dtype=torch.float64).expand(whole)
        return cls((Term(base, place, (one,)),), torch.zeros((), dtype=torch.float64).expand(whole))


def moved(function: Callable[..., Tensor], values: Sequence[Value]) -> Value:
    """The result of a function of tensors that only moves elements, or puts constants in their place."""
    nothing = [torch.zeros_like(value.constant) for value in values]
    put_in = function(*nothing)
    puts_in = bool(put_in.any())

    def of(number: int, x: Tensor) -> Tensor:
        found = function(*nothing[:number], x, *nothing[number + 1 :])
        return found - put_in if puts_in else found

    terms = [
        Term(term.base, of(number, term.place), tuple(of(number, c) for c in term.coefficients))
        for number, value in enumerate(values)
        for term in value.terms
    ]
    return _summed([t for t in terms if t.place.any()], function(*(value.constant for value in values)))


def plus(one: Value, other: Value, factor: float = 1.0) -> Value:
    """one + factor * other, of shapes that agree or are broadcast."""
    shape = broadcast(one.shape, other.shape)
    terms = [
        *expanded(one, shape).terms,
        *(t.times(torch.tensor(factor, dtype=torch.float64)) for t in expanded(other, shape).terms),
    ]
    return _summed(terms, one.constant + factor * other.constant)


def plus_constant(value: Value, constant: Tensor) -> Value:
    shape = broadcast(value.shape, constant.shape)
    return replace(expanded(value, shape), constant=value.constant + constant)


def times_constant(value: Value, factor: Tensor) -> Value:
    shape = broadcast(value.shape, factor.shape)
    wide = expanded(value, shape)
    return Value(tuple(term.times(factor) for term in wide.terms), wide.constant * factor)


def expanded(value: Value, shape: Sequence[int]) -> Value:
    """The same elements broadcast to a shape."""
    if value.shape == tuple(shape):
        return value
    terms = tuple(
        Term(t.base, t.place.expand(*shape), tuple(c.expand(*shape) for c in t.coefficients)) for t in value.terms
    )
    return Value(terms, value.constant.expand(*shape))


def product(one: Value, other: Value) -> Value | None:
    """The product where it is again a polynomial of the same elements; None where it is not, or the degree is high.

    None too where it is better not multiplied out: the square of a polynomial that is none of degree one is cheaper as
    a square of its value, and of (x - t)^2 with a large t nothing is left where the powers of x, each as large as t^2,
    cancel.
    """
    shape = broadcast(one.shape, other.shape)
    squared = one is other
    one, other = expanded(one, shape), expanded(other, shape)
    if len(one.terms) != 1 or len(other.terms) != 1:
        return None
    a, b = one.terms[0], other.terms[0]
    if a.base != b.base or a.degree + b.degree > MOST_DEGREE or (squared and a.degree > 1):
        return None
    if a.place is not b.place and not torch.equal(a.place, b.place):
        return None
    if ((_shift(one) > FAR) & (_shift(other) > FAR)).any():
        return None
    first, second = (one.constant, *a.coefficients), (other.constant, *b.coefficients)
    found = [torch.zeros_like(a.place) for _ in range(len(first) + len(second) - 1)]
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            found[i + j] = found[i + j] + x * y
    constant, *coefficients = found
    read = a.place > 0
    return Value((Term(a.base, a.place, tuple(c * read for c in coefficients)),), constant)


FAR = 64.0
"""From where on what is lost to constants that cancel is worth a product more."""


def _shift(value: Value) -> Tensor:
    """How far values of one term are shifted: of a linear one |t| in s (x + t)."""
    low, high = (value.constant, *value.terms[0].coefficients)[-2:]
    return torch.where(low == 0, 0.0, (low / high).abs())


def broadcast(*shapes: Sequence[int]) -> torch.Size:
    """The shape that tensors of these have together."""
    found: torch.Size = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    return found


def _summed(terms: Sequence[Term], constant: Tensor) -> Value:
    """Terms of the same elements, and terms of one tensor that are nowhere both, become one."""
    found: list[Term] = []
    for term in terms:
        for number, other in enumerate(found):
            both = _one(other, term)
            if both is not None:
                found[number] = both
                break
        else:
            found.append(term)
    return Value(tuple(found), constant)


def _one(one: Term, other: Term) -> Term | None:
    if one.base != other.base:
        return None
    same = one.place is other.place or torch.equal(one.place, other.place)
    if not same and ((one.place > 0) & (other.place > 0)).any():
        return None
    degree = max(one.degree, other.degree)
    nothing = torch.zeros_like(one.place)
    pairs = ((x.coefficients[k] if k < x.degree else nothing for x in (one, other)) for k in range(degree))
    return Term(one.base, one.place if same else one.place + other.place, tuple(a + b for a, b in pairs))

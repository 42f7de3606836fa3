"""States of the search: plans of the first layers of a network, and the few of them that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from heinfer.layout.layout import Layout
from heinfer.network.ir import INPUT
from heinfer.planner.plan import Step
from heinfer.planner.search.candidates import Candidate

BEAM = 5
"""States that are kept."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor that is still read: where it is (its candidate, moved or fuller), and the step that makes it."""

    place: Candidate
    step: int


@dataclass(frozen=True, eq=False)
class State:
    """A plan of the first layers.

    Attributes:
        input: how the client sends the input.
        tensors: those that later layers read, by the position of the node that makes them, or INPUT.
        price: in the unit of the objective, keys and upload included.
        keys: Galois keys in use.
        plaintext_bytes: of all constants, encoded.
    """

    input: Candidate
    tensors: Mapping[int, Tensor]
    steps: tuple[Step, ...] = ()
    price: float = 0.0
    keys: frozenset[int] = frozenset()
    plaintext_bytes: int = 0

    @classmethod
    def sent(cls, candidate: Candidate, price: float) -> State:
        """Before the first layer."""
        return cls(candidate, {INPUT: Tensor(candidate, INPUT)}, price=price)

    @property
    def layout_of(self) -> dict[int, Layout]:
        """Of every tensor that is still read."""
        return {tensor: held.place.layout for tensor, held in self.tensors.items()}

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Of the tensors that are still read, in the order of the nodes that make them."""
        return tuple(self.tensors[tensor].place.layout for tensor in sorted(self.tensors))

    def places(self, tensors: Iterable[int]) -> list[Candidate]:
        return [self.tensors[tensor].place for tensor in tensors]

    def steps_of(self, tensors: Iterable[int]) -> tuple[int, ...]:
        """Positions of the steps that make tensors."""
        return tuple(self.tensors[tensor].step for tensor in tensors)

    def followed_by(self, step: Step, makes: int, place: Candidate, price: float) -> State:
        """With one layer more, for so much more."""
        tensors = {**self.tensors, makes: Tensor(place, len(self.steps))}
        return replace(self, tensors=tensors, steps=(*self.steps, step), price=self.price + price)

    def without(self, tensors: Iterable[int]) -> State:
        """When nothing reads some tensors any more."""
        left = {tensor: kept for tensor, kept in self.tensors.items() if tensor not in set(tensors)}
        return replace(self, tensors=left)


def beam(states: Iterable[State], expected: Callable[[State], float]) -> list[State]:
    """Keep the states of the least expected price, one for each choice of layouts.

    Args:
        expected: the price of a state and of what certainly follows.
    """
    kept: dict[tuple[Layout, ...], State] = {}
    for state in sorted(states, key=expected):
        kept.setdefault(state.layouts, state)
    return list(kept.values())[:BEAM]

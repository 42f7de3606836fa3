"""Which degree each polynomial has: the least that is lost for so many levels one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import fx

from heinfer.brief import brief_repr
from heinfer.convert.polynomials.graph import computed
from heinfer.convert.polynomials.sites import Site
from heinfer.errors import SettingError

MOST_STATES = 20_000
"""Partial choices that are followed at a time; where there would be more, those that have lost least so far."""


@dataclass(frozen=True)
class Step:
    """A call in a model.

    Attributes:
        reads: earlier steps.
        losses: what is lost by how many levels it may take; of a call that takes none, nothing at none.
    """

    reads: tuple[int, ...]
    losses: Mapping[int, float] = field(default_factory=lambda: {0: 0.0})

    __repr__ = brief_repr


def steps_of(traced: fx.GraphModule, losses: Mapping[Site, Mapping[int, float]]) -> list[Step]:
    """The calls of a model that depend on its input, activations with what they lose."""
    of_input = computed(traced.graph)
    numbers: dict[fx.Node, int] = {}
    steps: list[Step] = []
    for node in traced.graph.nodes:
        if node in of_input:
            part = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
            reads = tuple(numbers[one] for one in node.all_input_nodes if one in of_input)
            steps.append(Step(reads, losses[part]) if isinstance(part, Site) else Step(reads))
            numbers[node] = len(steps) - 1
    return steps


def least_levels(steps: Sequence[Step]) -> int:
    """On the path that takes most, everything at its fewest."""
    return _deepest(steps, [min(step.losses) for step in steps])


def most_levels(steps: Sequence[Step]) -> int:
    """On the path that takes most, everything at its most."""
    return _deepest(steps, [max(step.losses) for step in steps])


def least_loss(steps: Sequence[Step], levels: int) -> list[int]:
    """How many levels each step takes so that no path takes more than so many in all, and the sum of losses is least.

    By dynamic programming over the steps: of all choices so far with which the values that are still read are at the
    same levels, the one that has lost least is kept, of equals the one of fewer levels.

    Raises:
        SettingError: when the fewest levels are too many.
    """
    least = least_levels(steps)
    if levels < least:
        raise SettingError(f"activations one after another take {least} levels at least, not {levels}")
    after = _after(steps)
    last_read = {read: number for number, step in enumerate(steps) for read in step.reads}
    live: list[int] = []
    states: dict[tuple[int, ...], tuple[float, int, _Taken]] = {(): (0.0, 0, None)}
    for number, step in enumerate(steps):
        place = {one: position for position, one in enumerate(live)}
        following = [one for one in (*live, number) if last_read.get(one, -1) > number]
        found: dict[tuple[int, ...], tuple[float, int, _Taken]] = {}
        for depths, (lost, total, taken) in states.items():
            before = max((depths[place[read]] for read in step.reads), default=0)
            for count, loss in step.losses.items():
                depth = before + count
                if depth + after[number] > levels:
                    continue
                key = tuple(depth if one == number else depths[place[one]] for one in following)
                reached = lost + loss, total + count
                if key not in found or reached < found[key][:2]:
                    found[key] = (*reached, (count, taken))
        live = following
        states = found if len(found) <= MOST_STATES else dict(sorted(found.items(), key=_lost)[:MOST_STATES])
    taken = min(states.values(), key=lambda state: state[:2])[2]
    chosen = []
    while taken is not None:
        count, taken = taken
        chosen.append(count)
    return chosen[::-1]


_Taken = tuple[int, "_Taken"] | None  # levels of the last step, and what was taken before it


def _lost(state: tuple[tuple[int, ...], tuple[float, int, _Taken]]) -> tuple[float, int]:
    return state[1][:2]


def _after(steps: Sequence[Step]) -> list[int]:
    """The fewest levels that are still to come after each step."""
    after = [0] * len(steps)
    for number in reversed(range(len(steps))):
        for read in steps[number].reads:
            after[read] = max(after[read], after[number] + min(steps[number].losses))
    return after


def _deepest(steps: Sequence[Step], taken: Sequence[int]) -> int:
    depths: list[int] = []
    for step, count in zip(steps, taken, strict=True):
        depths.append(count + max((depths[read] for read in step.reads), default=0))
    return max(depths, default=0)

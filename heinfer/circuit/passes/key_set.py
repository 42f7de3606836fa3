"""The key set: rotations whose own key is not worth shipping are composed of others.

A rotation by a + b is one by a and then one by b, which costs a key switch more unless the first is there already.
Keys are dropped greedily, those first whose absence costs the least time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.passes.common_subexpressions import merge_common_subexpressions
from heinfer.errors import CompileError

Steps = tuple[int, ...]


def levels(circuit: Circuit, input_level: int) -> list[int]:
    """The level of every value."""
    found: list[int] = []
    for op in circuit.ops:
        lower = op.kind in (Kind.RESCALE, Kind.DROP_LEVEL)
        found.append(min(found[a] for a in op.args) - lower if op.args else input_level)
    return found


@dataclass(frozen=True)
class KeySet:
    """Rotation keys that are enough for a circuit.

    Attributes:
        made: every step of the circuit -> the kept steps that it is made of.
        kept: steps that have a key.
        milliseconds: time of all rotations.
    """

    made: Mapping[int, Steps]
    kept: frozenset[int]
    milliseconds: float


def key_sets(circuit: Circuit, input_level: int, milliseconds: Callable[[int], float]) -> Iterator[KeySet]:
    """Yield a key for every step, and then one key less at a time, the cheapest to do without first."""
    tree = _Rotations.of(circuit, input_level, milliseconds)
    made: Mapping[int, Steps] = {step: (step,) for step in circuit.steps()}
    kept = frozenset(made)
    way: tuple[float, int, Mapping[int, Steps]] | None = tree.milliseconds(made), 0, made
    while way:
        time, step, made = way
        kept -= {step}
        yield KeySet(made, kept, time)
        way = min(tree.ways(made, kept), default=None, key=lambda found: found[:2])


def compose_rotations(
    circuit: Circuit, input_level: int, milliseconds: Callable[[int], float], key_price: float, most_keys: float
) -> Circuit:
    """Return the circuit with fewer rotation steps.

    Args:
        input_level: of the inputs.
        milliseconds: time of a rotation at a level.
        key_price: drop every key whose absence costs less than so many milliseconds.
        most_keys: drop further ones until no more than so many are left.

    Raises:
        CompileError: when so few keys cannot make all rotations.
    """
    sets = key_sets(circuit, input_level, milliseconds)
    chosen = next(sets)
    for fewer in sets:
        if len(chosen.kept) <= most_keys and fewer.milliseconds - chosen.milliseconds >= key_price:
            break
        chosen = fewer
    if len(chosen.kept) > most_keys:
        raise CompileError(
            f"{len(chosen.kept)} rotation keys are the fewest that were found, {most_keys:.0f} are allowed: "
            "raise the limit on key bytes"
        )
    if len(chosen.kept) == len(chosen.made):
        return circuit
    return merge_common_subexpressions(_composed(circuit, chosen.made))


@dataclass(frozen=True)
class _Rotations:
    """All rotations of a circuit: what is rotated, by which steps one after the other, and the time of one of them."""

    slots: int
    chains: tuple[tuple[int, Steps, float], ...]

    @classmethod
    def of(cls, circuit: Circuit, input_level: int, milliseconds: Callable[[int], float]) -> _Rotations:
        chains: dict[int, tuple[int, Steps, float]] = {}
        for (number, op), level in zip(circuit, levels(circuit, input_level), strict=True):
            if op.kind is Kind.ROTATE:
                base, steps, _ = chains.get(op.args[0], (op.args[0], (), 0.0))
                chains[number] = base, (*steps, op.step), milliseconds(level)
        return cls(circuit.slots, tuple(chains.values()))

    def milliseconds(self, made: Mapping[int, Steps]) -> float:
        """Time of all when steps are made of others; what begins alike is rotated once."""
        done: dict[tuple[int, Steps], float] = {}
        for base, chain, time in self.chains:
            steps = sum((made[step] for step in chain), ())
            for length in range(1, len(steps) + 1):
                done[base, steps[:length]] = time
        return sum(done.values())

    def ways(self, made: Mapping[int, Steps], kept: Iterable[int]) -> Iterator[tuple[float, int, Mapping[int, Steps]]]:
        """Kept steps that two others add up to: the time of all then, the step, and what steps are made of."""
        for step in sorted(kept):
            for first in made:
                second = (step - first) % self.slots
                if second in made and step not in (*made[first], *made[second]):
                    without = _without(step, made[first] + made[second], made)
                    yield self.milliseconds(without), step, without


def _without(step: int, way: Steps, made: Mapping[int, Steps]) -> dict[int, Steps]:
    """What steps are made of when one of them is made of others."""
    return {s: sum(((way if part == step else (part,)) for part in parts), ()) for s, parts in made.items()}


def _composed(circuit: Circuit, made: Mapping[int, Steps]) -> Circuit:
    ops: list[Op] = []
    renamed: list[int] = []
    for _, op in circuit:
        moved = replace(op, args=tuple(renamed[a] for a in op.args))
        for step in made.get(op.step, (op.step,)):
            ops.append(replace(moved, step=step))
            moved = replace(moved, args=(len(ops) - 1,))
        renamed.append(len(ops) - 1)
    return replace(circuit, ops=tuple(ops), outputs=tuple(renamed[o] for o in circuit.outputs))

"""The key set: rotations whose own key is not worth shipping are composed of others.

A rotation by a + b is one by a and then one by b, which costs a key switch more unless the first is there already.
Keys are dropped greedily, those first whose absence costs the least time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.levels import key_levels, levels
from heinfer.circuit.passes.common_subexpressions import merge_common_subexpressions
from heinfer.errors import CompileError

Steps = tuple[int, ...]
Time = Callable[[int], float]


@dataclass(frozen=True)
class KeySet:
    """Rotation keys that are enough for a circuit.

    Attributes:
        made: every step of the circuit -> the kept steps that it is made of.
        levels: steps that have a key, 0 for relinearization -> the highest level at which it is used.
        milliseconds: time of all rotations.
    """

    made: Mapping[int, Steps]
    levels: Mapping[int, int]
    milliseconds: float

    @property
    def kept(self) -> frozenset[int]:
        """Rotation steps that have a key."""
        return frozenset(self.levels.keys() - {0})


def key_sets(circuit: Circuit, input_level: int, milliseconds: Time, hoisted: Time | None = None) -> Iterator[KeySet]:
    """Yield a key for every step, and then one key less at a time, the cheapest to do without first.

    Args:
        milliseconds: time of a rotation at a level.
        hoisted: of a further one of the same value; by default the same.
    """
    tree = _Rotations.of(circuit, input_level, milliseconds, hoisted or milliseconds)
    made: Mapping[int, Steps] = {step: (step,) for step in circuit.steps()}
    kept = frozenset(made)
    way: tuple[float, int, Mapping[int, Steps]] | None = tree.milliseconds(made), 0, made
    while way:
        time, step, made = way
        kept -= {step}
        yield KeySet(made, tree.levels(made), time)
        way = min(tree.ways(made, kept), default=None, key=lambda found: found[:2])


def compose_rotations(
    circuit: Circuit,
    input_level: int,
    milliseconds: Time,
    key_price: float,
    most_bytes: float,
    key_bytes: Callable[[int], int],
    hoisted: Time | None = None,
) -> Circuit:
    """Return the circuit with fewer rotation steps.

    Args:
        input_level: of the inputs.
        milliseconds: time of a rotation at a level.
        key_price: drop every key whose absence costs less than so many milliseconds.
        most_bytes: drop further ones until all keys together, relinearization included, have no more.
        key_bytes: of a key for use up to a level.
        hoisted: time of a further rotation of the same value; by default that of any.

    Raises:
        CompileError: when so few keys cannot make all rotations.
    """

    def size(keys: KeySet) -> int:
        return sum(map(key_bytes, keys.levels.values()))

    sets = key_sets(circuit, input_level, milliseconds, hoisted)
    chosen = next(sets)
    for fewer in sets:
        if size(chosen) <= most_bytes and fewer.milliseconds - chosen.milliseconds >= key_price:
            break
        chosen = fewer
    if size(chosen) > most_bytes:
        raise CompileError(
            f"{len(chosen.kept)} rotation keys are the fewest that were found; all keys take {size(chosen)} bytes "
            f"then, {most_bytes:.0f} are allowed: raise the limit on key bytes"
        )
    if len(chosen.kept) == len(chosen.made):
        return circuit
    return merge_common_subexpressions(_composed(circuit, chosen.made))


@dataclass(frozen=True)
class _Rotations:
    """All rotations of a circuit.

    Attributes:
        slots: of a ciphertext.
        chains: of every rotation: what is rotated, by which steps one after the other, and at which level.
        relinearization: the highest level at which anything is relinearized, None when nothing is.
        time: milliseconds of a rotation at a level.
        hoisted: milliseconds of a further one of the same value.
    """

    slots: int
    chains: tuple[tuple[int, Steps, int], ...]
    relinearization: int | None
    time: Time
    hoisted: Time

    @classmethod
    def of(cls, circuit: Circuit, input_level: int, milliseconds: Time, hoisted: Time) -> _Rotations:
        chains: dict[int, tuple[int, Steps, int]] = {}
        for (number, op), level in zip(circuit, levels(circuit, input_level), strict=True):
            if op.kind is Kind.ROTATE:
                base, steps, _ = chains.get(op.args[0], (op.args[0], (), 0))
                chains[number] = base, (*steps, op.step), level
        relinearization = key_levels(circuit, input_level).get(0)
        return cls(circuit.slots, tuple(chains.values()), relinearization, milliseconds, hoisted)

    def milliseconds(self, made: Mapping[int, Steps]) -> float:
        """Time of all when steps are made of others; what begins alike is rotated once."""
        done: dict[tuple[int, Steps], float] = {}
        rotated: set[tuple[int, Steps]] = set()
        for base, chain, level in self.chains:
            steps = sum((made[step] for step in chain), ())
            for length in range(1, len(steps) + 1):
                if (base, steps[:length]) not in done:
                    first = (base, steps[: length - 1]) not in rotated
                    done[base, steps[:length]] = self.time(level) if first else self.hoisted(level)
                    rotated.add((base, steps[: length - 1]))
        return sum(done.values())

    def levels(self, made: Mapping[int, Steps]) -> Mapping[int, int]:
        """The highest level at which each key is used when steps are made of others."""
        highest: dict[int, int] = {} if self.relinearization is None else {0: self.relinearization}
        for _, chain, level in self.chains:
            for step in made[chain[-1]]:
                highest[step] = max(highest.get(step, 0), level)
        return dict(sorted(highest.items()))

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

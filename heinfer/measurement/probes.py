"""Circuits that are measured: in each one kind of operation dominates, used as compiled networks use it.

Keys, plaintexts and ciphertexts do not repeat more than they do in a network: on most machines they are then too many
for the caches, and are streamed from memory in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np

from heinfer.circuit.ir import Circuit, Kind, Op, SlotVector

INPUTS = 6
"""Ciphertexts that every probe takes: as many as a layer typically has baby steps."""
TERMS = 18
"""Products, and additions, of a sum."""

_FAN = 4
_FACTOR_SCALE = 2.0**10


def probes(slots: int, steps: Sequence[int], *, lowest: bool) -> dict[Kind, Circuit]:
    """Return a circuit for each kind of operation; each needs only the kinds before it, but for its own.

    Args:
        steps: those that keys are there for.
        lowest: whether for level 0, where nothing can be rescaled.
    """
    kinds: dict[Kind, list[Op]] = {
        Kind.INPUT: [],
        Kind.ADD: _sum(),
        Kind.ROTATE: [Op(Kind.ROTATE, (number - 1,), step=step) for number, step in enumerate(_turns(steps), INPUTS)],
        Kind.MULTIPLY_PLAIN: _weighted_sum(),
        Kind.MULTIPLY: [Op(Kind.MULTIPLY, (number, number)) for number in range(_FAN)],
        Kind.RELINEARIZE: [Op(Kind.MULTIPLY, (0, 0)), *[Op(Kind.RELINEARIZE, (INPUTS,))] * _FAN],
    }
    if not lowest:
        kinds |= {kind: [Op(kind, (number,)) for number in range(_FAN)] for kind in (Kind.RESCALE, Kind.DROP_LEVEL)}
    constants = tuple(np.random.default_rng(0).uniform(-1, 1, (TERMS, slots)))
    return {kind: _circuit(slots, ops, constants) for kind, ops in kinds.items()}


def hoisted_probe(slots: int, steps: Sequence[int]) -> Circuit:
    """Rotations of one input that share its digits."""
    return _circuit(slots, [Op(Kind.ROTATE, (0,), step=step, hoist=0) for step in _turns(steps)], ())


def _turns(steps: Sequence[int]) -> list[int]:
    return list(islice(cycle(steps), max(len(steps), _FAN)))


def _sum() -> list[Op]:
    """((x1 + x2) + x3) + ..., over and over the inputs."""
    terms = list(islice(cycle(range(INPUTS)), 1, TERMS + 1))
    return [Op(Kind.ADD, (INPUTS + n - 1 if n else 0, term)) for n, term in enumerate(terms)]


def _weighted_sum() -> list[Op]:
    """Sum of products of the inputs by plaintexts, each plaintext used once."""
    ops: list[Op] = []
    for term in range(TERMS):
        total = INPUTS + len(ops) - 1
        ops.append(Op(Kind.MULTIPLY_PLAIN, (term % INPUTS,), constant=term, scale=_FACTOR_SCALE))
        if term:
            ops.append(Op(Kind.ADD, (total, total + 1)))
    return ops


def _circuit(slots: int, ops: Sequence[Op], constants: tuple[SlotVector, ...]) -> Circuit:
    inputs = [Op(Kind.INPUT, input=number) for number in range(INPUTS)]
    used = any(op.constant >= 0 for op in ops)
    return Circuit(slots, (*inputs, *ops), (INPUTS + len(ops) - 1,), constants if used else ())

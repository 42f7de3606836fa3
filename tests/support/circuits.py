"""Circuits written by hand, without a network: a builder, and one circuit with every operation there is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from heinfer.circuit.ir import Circuit, Kind, Op, SlotVector


@dataclass
class Builder:
    """Appends operations; every method returns the number of the value it makes."""

    slots: int
    ops: list[Op] = field(default_factory=list)
    constants: list[SlotVector] = field(default_factory=list)

    def op(self, kind: Kind, *args: int, step: int = 0, hoist: int = -1) -> int:
        self.ops.append(Op(kind, args, step=step, hoist=hoist))
        return len(self.ops) - 1

    def input(self) -> int:
        number = sum(op.kind is Kind.INPUT for op in self.ops)
        self.ops.append(Op(Kind.INPUT, input=number))
        return len(self.ops) - 1

    def with_constant(self, kind: Kind, argument: int, constant: SlotVector, scale: float = 0.0) -> int:
        self.constants.append(constant)
        self.ops.append(Op(kind, (argument,), constant=len(self.constants) - 1, scale=scale))
        return len(self.ops) - 1

    def total(self, values: list[int]) -> int:
        result = values[0]
        for value in values[1:]:
            result = self.op(Kind.ADD, result, value)
        return result

    def circuit(self, *outputs: int) -> Circuit:
        return Circuit(self.slots, tuple(self.ops), outputs, tuple(self.constants))


SCALE = 2.0**3
"""Of inputs: low, so that squares of it fit one small prime."""


def weighted_rotations(slots: int, steps: tuple[int, ...], weight: SlotVector) -> Circuit:
    """A sum of rotations of one input that share its digits, each times a weight."""
    b = Builder(slots)
    x = b.input()
    turned = [b.op(Kind.ROTATE, x, step=step, hoist=0) for step in steps]
    weighed = [b.with_constant(Kind.MULTIPLY_PLAIN, t, weight, 2.0) for t in turned]
    return b.circuit(b.op(Kind.RESCALE, b.total(weighed)))


def every_operation(slots: int, level: int, steps: tuple[int, ...], seed: int = 0) -> Circuit:
    """Every operation on two inputs, each an output of its own: alone, and in the sums that are made one."""
    rng = np.random.default_rng(seed)
    b = Builder(slots)
    x, y = b.input(), b.input()
    square, product = b.op(Kind.MULTIPLY, x, x), b.op(Kind.MULTIPLY, x, y)
    wide = rng.normal(size=slots) * 2.0**40  # so that plaintext words are random, too
    constants = [wide, rng.normal(size=slots), np.zeros(slots), np.array([-1.75]), np.array([0.0]), np.array([2.0**35])]
    outputs = [square, product, b.op(Kind.RELINEARIZE, square), b.op(Kind.RELINEARIZE, product), b.op(Kind.ADD, x, y)]
    squared = b.op(Kind.MULTIPLY, y, y)  # read by its relinearization only: the two become one
    outputs += [b.op(Kind.RELINEARIZE, squared), b.op(Kind.ADD, square, product)]
    for constant in constants:
        outputs += [
            b.with_constant(Kind.MULTIPLY_PLAIN, x, constant, 2.0**2),
            b.with_constant(Kind.ADD_PLAIN, x, constant),
            b.with_constant(Kind.ADD_PLAIN, product, constant),
            b.with_constant(Kind.MULTIPLY_PLAIN, square, constant, 2.0),
        ]
    terms = [b.with_constant(Kind.MULTIPLY_PLAIN, v, c, 2.0) for v in (x, y) for c in constants]
    outputs.append(b.with_constant(Kind.ADD_PLAIN, b.total(terms), constants[0]))
    for step in steps:
        outputs.append(b.op(Kind.ROTATE, x, step=step))
        outputs.append(b.op(Kind.ADD, y, b.op(Kind.ROTATE, x, step=step)))
    if level:
        outputs += [b.op(kind, v) for kind in (Kind.RESCALE, Kind.DROP_LEVEL) for v in (x, square)]
        outputs.append(b.op(Kind.ADD, b.op(Kind.DROP_LEVEL, x), b.op(Kind.DROP_LEVEL, y)))
    return b.circuit(*outputs)

"""The ciphertext-level program: static single assignment, one operation per value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr

SlotVector = NDArray[np.float64]


class Kind(StrEnum):
    """What an operation does; the comment gives its arguments."""

    INPUT = "input"  # no arguments; ciphertext number in `input`
    ROTATE = "rotate"  # x; slots move left by `step`
    MULTIPLY_PLAIN = "multiply_plain"  # x, constant at `scale`
    ADD_PLAIN = "add_plain"  # x, constant at the scale of x
    ADD = "add"  # x, y of equal level and scale
    MULTIPLY = "multiply"  # x, y of equal level; the result has three polynomials
    RELINEARIZE = "relinearize"  # x of three polynomials
    RESCALE = "rescale"  # x; divides by the last prime
    DROP_LEVEL = "drop_level"  # x; forgets the last prime, keeps the scale


KEY_SWITCHES = frozenset({Kind.ROTATE, Kind.RELINEARIZE})


@dataclass(frozen=True)
class Op:
    """One operation; its value's number is its position in the circuit.

    Attributes:
        kind: what it does.
        args: numbers of the values it reads.
        step: ROTATE only: slots to the left, in 1..slots-1.
        constant: MULTIPLY_PLAIN and ADD_PLAIN only: number of the constant.
        scale: MULTIPLY_PLAIN only: scale at which the constant is encoded (0 until the scale pass ran).
        input: INPUT only: number of the input ciphertext.
        hoist: ROTATE only: rotations with an equal number >= 0 share the digits of one input.
        layer: index into `Circuit.layers` of the layer the operation belongs to, -1 for none.
    """

    kind: Kind
    args: tuple[int, ...] = ()
    step: int = 0
    constant: int = -1
    scale: float = 0.0
    input: int = -1
    hoist: int = -1
    layer: int = -1

    __repr__ = brief_repr

    def with_args(self, args: tuple[int, ...]) -> Op:
        return replace(self, args=args)


@dataclass(frozen=True)
class Layer:
    """What a report says of one layer: its name, how it is evaluated, and the layouts it maps between."""

    name: str
    kernel: str = ""
    layout_in: str = ""
    layout_out: str = ""

    __repr__ = brief_repr


@dataclass(frozen=True, eq=False)
class Circuit:
    """A program over ciphertexts of `slots` slots.

    Attributes:
        slots: slots per ciphertext.
        ops: operations in an order in which every argument precedes its use.
        outputs: numbers of the values that leave the circuit.
        constants: plaintext vectors of shape (slots,); a constant of shape (1,) is a scalar in every slot.
        layers: the layers that operations belong to, for reports and error messages.
    """

    slots: int
    ops: tuple[Op, ...]
    outputs: tuple[int, ...]
    constants: tuple[SlotVector, ...] = ()
    layers: tuple[Layer, ...] = ()

    __repr__ = brief_repr

    def _about(self) -> str:
        kinds = Counter(op.kind.value for op in self.ops)
        return (
            f"{len(self.ops)} operations on {self.slots} slots: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"
        )

    @property
    def inputs(self) -> int:
        """Number of input ciphertexts."""
        return sum(op.kind is Kind.INPUT for op in self.ops)

    @cached_property
    def last_use(self) -> dict[int, int]:
        """Value -> number of the last operation that reads it; the number of operations for outputs."""
        uses = {argument: number for number, op in self for argument in op.args}
        return uses | dict.fromkeys(self.outputs, len(self.ops))

    @cached_property
    def by_layer(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the operations of each layer, in the order of ``layers``."""
        numbers: list[list[int]] = [[] for _ in self.layers]
        for number, op in self:
            if op.layer >= 0:
                numbers[op.layer].append(number)
        return tuple(map(tuple, numbers))

    def steps(self) -> tuple[int, ...]:
        """Rotation steps that need a Galois key, ascending."""
        return tuple(sorted({op.step for op in self.ops if op.kind is Kind.ROTATE}))

    @property
    def needs_relinearization(self) -> bool:
        return any(op.kind is Kind.RELINEARIZE for op in self.ops)

    def layer_name(self, op: Op) -> str:
        return self.layers[op.layer].name if 0 <= op.layer < len(self.layers) else "the network"

    def __iter__(self) -> Iterator[tuple[int, Op]]:
        return iter(enumerate(self.ops))

"""Appends operations to a circuit under construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from heinfer.circuit.ir import Circuit, Kind, Layer, Op, SlotVector


class Builder:
    """Collects operations; every method returns the number of the new value."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._ops: list[Op] = []
        self._constants: list[SlotVector] = []
        self._layers: list[Layer] = []

    def layer(self, layer: Layer) -> None:
        """Start a layer: operations from here on belong to it."""
        self._layers.append(layer)

    def input(self, ciphertext: int) -> int:
        return self._append(Op(Kind.INPUT, input=ciphertext))

    def rotate(self, x: int, step: int) -> int:
        """Slots move left by ``step``; a multiple of the slots is no operation."""
        step %= self.slots
        return self._append(Op(Kind.ROTATE, (x,), step=step)) if step else x

    def multiply_plain(self, x: int, vector: SlotVector) -> int:
        return self._append(Op(Kind.MULTIPLY_PLAIN, (x,), constant=self._constant(vector)))

    def add_plain(self, x: int, vector: SlotVector) -> int:
        return self._append(Op(Kind.ADD_PLAIN, (x,), constant=self._constant(vector)))

    def add(self, x: int, y: int) -> int:
        return self._append(Op(Kind.ADD, (x, y)))

    def multiply(self, x: int, y: int) -> int:
        """x y, relinearized."""
        return self._append(Op(Kind.RELINEARIZE, (self._append(Op(Kind.MULTIPLY, (x, y))),)))

    def square(self, x: int) -> int:
        """x^2, relinearized."""
        return self.multiply(x, x)

    def rescale(self, x: int) -> int:
        return self._append(Op(Kind.RESCALE, (x,)))

    def drop_level(self, x: int) -> int:
        return self._append(Op(Kind.DROP_LEVEL, (x,)))

    def finish(self, outputs: tuple[int, ...]) -> Circuit:
        return Circuit(self.slots, tuple(self._ops), outputs, tuple(self._constants), tuple(self._layers))

    def _append(self, op: Op) -> int:
        layer = len(self._layers) - 1 if op.kind is not Kind.INPUT else -1
        self._ops.append(replace(op, layer=layer))
        return len(self._ops) - 1

    def _constant(self, vector: SlotVector) -> int:
        self._constants.append(np.asarray(vector, dtype=np.float64))
        return len(self._constants) - 1

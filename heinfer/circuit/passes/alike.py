"""Values that agree in level and scale, whatever scales a circuit is given: few, where there are many values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heinfer.circuit.ir import Circuit, Kind, Op

_OF_ITS_ARGUMENT = frozenset({Kind.ROTATE, Kind.ADD_PLAIN, Kind.ADD})
"""Operations whose value has the level and scale of what they read, or read first."""


@dataclass(frozen=True, eq=False)
class Alike:
    """A circuit by its types.

    Attributes:
        skeleton: one operation for all values that agree in level and scale; it says nothing of what they hold.
        of_value: of every value of the circuit, the one of the skeleton that agrees with it.
    """

    skeleton: Circuit
    of_value: tuple[int, ...]

    def sources(self, circuit: Circuit) -> tuple[list[tuple[int, bool]], list[int]]:
        """Scales that operations have errors at, and which of them each operation has.

        Returns:
            list: values of the skeleton, and whether it is the scale of its plaintext factor or its own.
            list: for every operation, a position in that.
        """
        kinds = [(self.of_value[number], op.kind is Kind.MULTIPLY_PLAIN) for number, op in circuit]
        sources = list(dict.fromkeys(kinds))
        position = {source: i for i, source in enumerate(sources)}
        return sources, [position[kind] for kind in kinds]


def alike_in_scale(circuit: Circuit) -> Alike:
    """The skeleton of a circuit: scales that are assigned to it are those that the circuit would be assigned."""
    ops: list[Op] = []
    known: dict[Op, int] = {}
    of_value: list[int] = []
    factors = {op.layer for op in circuit.ops if op.kind is Kind.MULTIPLY_PLAIN}
    mixed = {op.layer for op in circuit.ops if op.kind is Kind.MULTIPLY} & factors
    for _, op in circuit:
        args = tuple(of_value[a] for a in op.args)
        if op.kind in _OF_ITS_ARGUMENT:
            of_value.append(args[0])
            continue
        is_of_layer = op.kind is Kind.MULTIPLY_PLAIN or (op.kind is Kind.MULTIPLY and op.layer in mixed)
        layer = op.layer if is_of_layer else -1
        same = replace(op, args=args, constant=-1, scale=0.0, input=-1, hoist=-1, layer=layer)
        if same not in known:
            known[same] = len(ops)
            ops.append(same)
        of_value.append(known[same])
    outputs: Sequence[int] = [of_value[o] for o in circuit.outputs]
    return Alike(Circuit(circuit.slots, tuple(ops), tuple(outputs), (), circuit.layers), tuple(of_value))

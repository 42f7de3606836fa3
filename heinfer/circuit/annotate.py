"""Levels, scales and sizes of every value: interpretation of a circuit over its types."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose

from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.ckks.parameters import Parameters
from heinfer.errors import CircuitError

_SAME_SCALE = 2.0**-52  # SEAL's are_same_scale: relative difference under the double epsilon


@dataclass(frozen=True)
class ValueType:
    """What is known of a ciphertext without its data.

    Attributes:
        level: rescales still possible.
        scale: the exact double that SEAL computes.
        size: number of polynomials, 2 or 3.
    """

    level: int
    scale: float
    size: int = 2


def annotate(circuit: Circuit, parameters: Parameters, input_level: int, input_scale: float) -> tuple[ValueType, ...]:
    """Return the type of every value; CircuitError names the layer where levels, scales or sizes do not fit."""
    types: list[ValueType] = []
    for number, op in circuit:
        arguments = [types[a] for a in op.args]
        try:
            types.append(type_of(op, arguments, parameters, input_level, input_scale))
        except CircuitError as error:
            raise CircuitError(f"{circuit.layer_name(op)}: value {number} ({op.kind}): {error}") from None
    return tuple(types)


def type_of(op: Op, args: list[ValueType], parameters: Parameters, level: int, scale: float) -> ValueType:
    """Type of one operation's value, from those of its arguments and the level and scale of inputs."""
    match op.kind:
        case Kind.INPUT if not 0 <= level <= parameters.top_level:
            raise CircuitError(f"inputs at level {level}, and the parameters give 0..{parameters.top_level}")
        case Kind.INPUT:
            return ValueType(level, scale)
        case Kind.RELINEARIZE:
            return ValueType(args[0].level, args[0].scale)
        case Kind.MULTIPLY_PLAIN:
            return ValueType(args[0].level, args[0].scale * op.scale, args[0].size)
        case Kind.ADD | Kind.MULTIPLY:
            return _type_of_pair(op.kind, *args)
        case Kind.RESCALE | Kind.DROP_LEVEL:
            return _type_one_level_down(op.kind, args[0], parameters)
        case Kind.ROTATE if args[0].size != 2:
            raise CircuitError("a ciphertext of three polynomials must be relinearized before it is rotated")
        case _:
            return args[0]


def _type_of_pair(kind: Kind, x: ValueType, y: ValueType) -> ValueType:
    if x.level != y.level:
        raise CircuitError(f"operands are at levels {x.level} and {y.level}")
    if kind is Kind.ADD:
        if not isclose(x.scale, y.scale, rel_tol=_SAME_SCALE, abs_tol=0):
            raise CircuitError(f"operands have the scales {x.scale!r} and {y.scale!r}")
        return ValueType(x.level, x.scale, max(x.size, y.size))
    if x.size != 2 or y.size != 2:
        raise CircuitError("factors must be relinearized first")
    return ValueType(x.level, x.scale * y.scale, 3)


def _type_one_level_down(kind: Kind, x: ValueType, parameters: Parameters) -> ValueType:
    if x.level == 0:
        raise CircuitError(
            f"no level is left: the circuit needs more than the {parameters.top_level} levels that the parameters give"
        )
    scale = x.scale / parameters.data_primes[x.level] if kind is Kind.RESCALE else x.scale
    return ValueType(x.level - 1, scale, x.size)

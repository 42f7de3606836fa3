"""Validators: invariants of a circuit that every pass must keep."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log2, prod
from sys import float_info

import numpy as np

from heinfer.circuit.ir import Circuit, Kind, Op, SlotVector
from heinfer.circuit.typed import TypedCircuit
from heinfer.errors import CircuitError, RangeError

_ARGUMENTS = {
    Kind.INPUT: 0,
    Kind.ROTATE: 1,
    Kind.MULTIPLY_PLAIN: 1,
    Kind.ADD_PLAIN: 1,
    Kind.ADD: 2,
    Kind.MULTIPLY: 2,
    Kind.RELINEARIZE: 1,
    Kind.RESCALE: 1,
    Kind.DROP_LEVEL: 1,
}


def validate_structure(circuit: Circuit) -> None:
    """Raise CircuitError unless the circuit is well-formed static single assignment."""
    inputs = []
    wrong = {n: _constant_complaint(c, circuit.slots) for n, c in enumerate(circuit.constants)}
    for number, op in circuit:
        complaint = _complaint(circuit, number, op) or wrong.get(op.constant)
        if complaint:
            raise CircuitError(f"{circuit.layer_name(op)}: value {number} ({op.kind}) {complaint}")
        if op.kind is Kind.INPUT:
            inputs.append(op.input)
    if sorted(inputs) != list(range(len(inputs))):
        raise CircuitError(f"inputs are numbered {inputs}, not 0..{len(inputs) - 1}")
    if not circuit.outputs or not all(0 <= o < len(circuit.ops) for o in circuit.outputs):
        raise CircuitError(f"outputs {circuit.outputs} are not values of the circuit")


def _complaint(circuit: Circuit, number: int, op: Op) -> str | None:
    needs_constant = op.kind in (Kind.MULTIPLY_PLAIN, Kind.ADD_PLAIN)
    if len(op.args) != _ARGUMENTS[op.kind]:
        return f"takes {_ARGUMENTS[op.kind]} arguments, has {len(op.args)}"
    if not all(0 <= a < number for a in op.args):
        return f"reads {op.args}, which are not all before it"
    if not (0 < op.step < circuit.slots if op.kind is Kind.ROTATE else op.step == 0):
        return f"has the rotation step {op.step}"
    if not (0 <= op.constant < len(circuit.constants) if needs_constant else op.constant == -1):
        return f"has the constant {op.constant}"
    if (op.kind is Kind.INPUT) != (op.input >= 0):
        return f"has the input {op.input}"
    if not -1 <= op.layer < len(circuit.layers):
        return f"belongs to layer {op.layer} of {len(circuit.layers)}"
    return None


def _constant_complaint(constant: SlotVector, slots: int) -> str | None:
    if constant.shape not in ((slots,), (1,)):
        return f"has a constant of shape {constant.shape}"
    if not np.isfinite(constant).all():
        return "has a constant that is not finite"
    return None


def validate_ranges(typed: TypedCircuit, bounds: Sequence[float]) -> None:
    """Raise RangeError where bound x scale can reach half the modulus: CKKS would wrap around in silence.

    So would a constant, and SEAL 4.3 has no defined result for one that is far too large.

    |slot| <= bound implies |coefficient| <= bound x scale, since coefficients are averages of rotated slots.
    """
    circuit, parameters = typed.circuit, typed.parameters
    halves = [prod(parameters.primes_at(level)) / 2 for level in range(parameters.top_level + 1)]
    peaks = [float(max(constant.max(), -constant.min())) for constant in circuit.constants]
    for number, op in circuit:
        kind = typed.types[number]
        if not float_info.min <= kind.scale < inf:
            raise CircuitError(f"{circuit.layer_name(op)}: value {number} ({op.kind}) has the scale {kind.scale}")
        half = halves[kind.level]
        if op.constant >= 0:
            scale = op.scale if op.kind is Kind.MULTIPLY_PLAIN else kind.scale
            if not peaks[op.constant] * scale < half:
                raise RangeError(
                    f"{circuit.layer_name(op)}: the constants of value {number} ({op.kind}), up to "
                    f"{peaks[op.constant]:.3g} at scale 2^{log2(scale):.1f}, exceed half the modulus of level "
                    f"{kind.level}: lower the scale, or scale the weights down"
                )
        if not bounds[number] * kind.scale < half:  # also when a bound is no number
            raise RangeError(
                f"{circuit.layer_name(op)}: values up to {bounds[number]:.3g} at scale 2^{log2(kind.scale):.1f} need "
                f"{log2(bounds[number] * kind.scale) + 1:.1f} bits and level {kind.level} has {log2(half) + 1:.1f}: "
                "lower the scale, raise the base prime, or calibrate on data with a smaller range"
            )


def validate(typed: TypedCircuit, bounds: Sequence[float]) -> None:
    """Run every validator; `bounds` of all values."""
    validate_structure(typed.circuit)
    validate_ranges(typed, bounds)

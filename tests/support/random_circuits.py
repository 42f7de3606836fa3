"""Random circuits for both backends: every operation, in any order that levels, scales and sizes allow."""

from __future__ import annotations

from math import log2

import numpy as np
from circuits import SCALE, Builder
from hypothesis import strategies as st

from heinfer.circuit.annotate import ValueType
from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters

_KINDS = [k for k in Kind if k is not Kind.INPUT]


@st.composite
def random_circuits(draw: st.DrawFn, parameters: Parameters, level: int, steps: tuple[int, ...]) -> Circuit:
    """Circuits of a few inputs and up to some 40 operations; any values leave them."""
    b = Builder(parameters.slots)
    for _ in range(draw(st.integers(1, 3))):
        b.input()
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    b.constants += [rng.normal(size=parameters.slots), np.array([rng.normal()]), np.zeros(parameters.slots)]
    constants = len(b.constants)
    types = TypedCircuit(b.circuit(), parameters, level, SCALE).types
    for _ in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from(_KINDS))
        candidates = [v for v, t in enumerate(types) if _takes(kind, t, parameters)]
        if not candidates:
            continue
        x = candidates[-1 - draw(st.integers(0, min(len(candidates) - 1, 5)))]
        if kind in {Kind.MULTIPLY_PLAIN, Kind.ADD_PLAIN}:
            vector = b.constants[draw(st.integers(0, constants - 1))]
            b.with_constant(kind, x, vector, 2.0 if kind is Kind.MULTIPLY_PLAIN else 0.0)
        elif kind in {Kind.ADD, Kind.MULTIPLY}:
            partners = [v for v in candidates if _fits(kind, types[x], types[v])]
            b.op(kind, x, draw(st.sampled_from(partners)))
        elif kind is Kind.ROTATE:
            b.op(kind, x, step=draw(st.sampled_from(steps)), hoist=x if draw(st.booleans()) else -1)
        else:
            b.op(kind, x)
        types = TypedCircuit(b.circuit(), parameters, level, SCALE).types
    outputs = draw(st.lists(st.integers(0, len(types) - 1), min_size=1, max_size=4))
    return b.circuit(*outputs, len(types) - 1)


def _takes(kind: Kind, value: ValueType, parameters: Parameters) -> bool:
    bits = sum(log2(q) for q in parameters.primes_at(value.level)) - 1  # SEAL refuses scales beyond the modulus
    match kind:
        case Kind.ROTATE:
            return value.size == 2
        case Kind.RELINEARIZE:
            return value.size == 3
        case Kind.MULTIPLY:
            return value.size == 2 and 2 * log2(value.scale) < bits
        case Kind.MULTIPLY_PLAIN:
            return 1 + log2(value.scale) < bits
        case Kind.RESCALE:
            return value.level > 0
        case Kind.DROP_LEVEL:
            return value.level > 0 and log2(value.scale) < bits - 31
        case _:
            return True


def _fits(kind: Kind, x: ValueType, y: ValueType) -> bool:
    return x.level == y.level and (kind is Kind.MULTIPLY or x.scale == y.scale)

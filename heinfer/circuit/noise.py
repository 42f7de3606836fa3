"""The noise model: the variance of the error in every slot of every value.

Errors are taken as independent. With ring degree N, scale D and an error polynomial whose
coefficients have variance v, the real part of a slot has variance N v / 2 / D^2. Sources:

- fresh symmetric encryption: SEAL's centred binomial, 21 + 21 bits, v = 10.5; encoding adds 1/12;
- rescale and the division by the special prime P round both polynomials: v = (1 + 2N/3) / 12, since
  the second one meets a uniform ternary secret;
- key switching at l data primes adds sum_j d_j e_j / P. SEAL's digits d_j are uniform in [0, q_j), not
  centred: their mean q_j / 2 is a multiple of 1 + X + ... + X^(N-1), which at the root r of a slot is
  2 / (1 - r). Slots whose root is near 1 (slot 0 above all) are therefore far noisier than the rest:
  variance l s^2 (q/P)^2 (N^2 / 24 + N / (2 |1 - r|^2)), s^2 = 10.5.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.ir import Kind, Op
from heinfer.circuit.statistics import Statistics
from heinfer.circuit.typed import TypedCircuit

Variance = NDArray[np.float64]

_FRESH = 10.5
_ROUNDING = 1 / 12


def predict_noise(typed: TypedCircuit, statistics: Statistics, of_layer: int | None = None) -> list[Variance]:
    """Return the error variance of every output, shape (slots,) each, in units of the message.

    Args:
        of_layer: count only what this layer's operations add, -1 for encryption; variances of layers add up to all.
    """
    circuit, model = typed.circuit, _NoiseModel(typed, statistics)
    live: dict[int, Variance] = {}
    for number, op in circuit:
        live[number] = model.passed_on(op, [live[a] for a in op.args])
        if of_layer in (None, op.layer):
            live[number] = live[number] + model.added(number, op)
        for argument in set(op.args):
            if circuit.last_use[argument] == number:
                del live[argument]
    return [live[o] for o in circuit.outputs]


class _NoiseModel:
    def __init__(self, typed: TypedCircuit, statistics: Statistics) -> None:
        self.circuit = typed.circuit
        self.types = typed.types
        self.power = statistics.power
        self.parameters = typed.parameters
        self.degree = typed.parameters.ring_degree
        self.near_one = _inverse_distance_to_one(self.degree)

    def passed_on(self, op: Op, args: list[Variance]) -> Variance:
        """What an operation makes of the errors of its arguments."""
        match op.kind:
            case Kind.INPUT:
                return np.zeros(self.circuit.slots)
            case Kind.ADD:
                return args[0] + args[1]
            case Kind.MULTIPLY_PLAIN:
                scaled: Variance = args[0] * self.circuit.constants[op.constant] ** 2
                return scaled
            case Kind.MULTIPLY:
                x, y = op.args
                cross = 4.0 if x == y else 2.0  # the error of x^2 is 2 x e, fully correlated
                crossed: Variance = cross / 2 * (self.power[x] * args[1] + self.power[y] * args[0])
                return crossed
            case Kind.ROTATE:
                return np.roll(args[0], -op.step)
            case _:
                return args[0]

    def added(self, number: int, op: Op) -> Variance | float:
        """The error of an operation's own."""
        scale = self.types[number].scale
        match op.kind:
            case Kind.INPUT:
                return self._slot(_FRESH + _ROUNDING, scale)
            case Kind.ADD_PLAIN:
                return self._slot(_ROUNDING, scale)
            case Kind.MULTIPLY_PLAIN:
                is_scalar = self.circuit.constants[op.constant].size == 1
                encoding = _ROUNDING / op.scale**2 if is_scalar else self._slot(_ROUNDING, op.scale)
                encoded: Variance = self.power[op.args[0]] * encoding
                return encoded
            case Kind.RESCALE:
                return self._slot(self._rounded, scale)
            case Kind.ROTATE | Kind.RELINEARIZE:
                return self._key_switch(number)
            case _:
                return 0.0

    @property
    def _rounded(self) -> float:
        return _ROUNDING * (1 + 2 * self.degree / 3)

    def _slot(self, coefficient_variance: float, scale: float) -> float:
        return self.degree / 2 * coefficient_variance / scale**2

    def _key_switch(self, number: int) -> Variance:
        kind = self.types[number]
        primes = np.array(self.parameters.primes_at(kind.level), dtype=np.float64)
        ratio = float(np.sum((primes / self.parameters.special_prime) ** 2))
        digits = _FRESH * ratio * (self.degree**2 / 24 + self.degree / 2 * self.near_one)
        return digits / kind.scale**2 + self._slot(self._rounded, kind.scale)


@lru_cache
def _inverse_distance_to_one(degree: int) -> Variance:
    """1 / |1 - r_j|^2 for the root r_j = exp(i pi 3^j / N) of every slot j."""
    powers = np.empty(degree // 2, dtype=np.int64)
    power = 1
    for slot in range(powers.size):
        powers[slot] = power
        power = power * 3 % (2 * degree)
    distances: Variance = 1 / (4 * np.sin(np.pi * powers / (2 * degree)) ** 2)
    return distances

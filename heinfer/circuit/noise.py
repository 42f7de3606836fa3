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

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.statistics import Statistics
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters

Variance = NDArray[np.float64]

_FRESH = 10.5
_ROUNDING = 1 / 12

_EXACT = frozenset({Kind.ADD, Kind.MULTIPLY, Kind.DROP_LEVEL})
"""Operations that add no error of their own."""

GROUPS_AT_ONCE = 8
"""Variances of so many groups of operations are carried together: bounds the memory."""


def predict_noise(typed: TypedCircuit, statistics: Statistics, of_layer: int | None = None) -> list[Variance]:
    """Return the error variance of every output, shape (slots,) each, in units of the message.

    Args:
        of_layer: count only what this layer's operations add, -1 for encryption; variances of layers add up to all.
    """
    rows = [0 if of_layer in (None, op.layer) else None for op in typed.circuit.ops]
    model = NoiseModel(typed.circuit, typed.parameters, statistics)
    levels, scales = typed.levels, [kind.scale for kind in typed.types]
    own = [op.scale if op.kind is Kind.MULTIPLY_PLAIN else scales[number] for number, op in typed.circuit]
    return [variances[0] for variances in model.carried(rows, 1, levels, own)]


def noise_by_layer(typed: TypedCircuit, statistics: Statistics) -> list[Variance]:
    """What encryption and every layer add to the variance of every output, shape (1 + layers, slots) each."""
    circuit, scales = typed.circuit, [kind.scale for kind in typed.types]
    own = [op.scale if op.kind is Kind.MULTIPLY_PLAIN else scales[number] for number, op in circuit]
    groups = [op.layer + 1 for op in circuit.ops]
    model = NoiseModel(circuit, typed.parameters, statistics)
    return model.by_group(groups, 1 + len(circuit.layers), typed.levels, own)


def noise_at_unit_scales(
    circuit: Circuit, parameters: Parameters, levels: Sequence[int], statistics: Statistics, groups: Sequence[int]
) -> list[Variance]:
    """What each group of operations would add to the variance of every output, were all scales one.

    The errors of an operation are those at unit scale divided by its scale, and reach the outputs in the same way
    whatever the scales are: with these the noise of any scales is a sum of a few terms.

    Args:
        levels: of every value.
        groups: the group of every operation, 0, 1, ...

    Returns:
        list: for every output (groups, slots).
    """
    model = NoiseModel(circuit, parameters, statistics)
    return model.by_group(groups, max(groups) + 1, levels, [1.0] * len(circuit.ops))


class NoiseModel:
    """What operations add to the variance of a circuit's values, and what they make of it."""

    def __init__(self, circuit: Circuit, parameters: Parameters, statistics: Statistics) -> None:
        self.circuit = circuit
        self.power = statistics.power
        self.parameters = parameters
        self.degree = parameters.ring_degree

    def by_group(
        self, groups: Sequence[int], total: int, levels: Sequence[int], scales: Sequence[float]
    ) -> list[Variance]:
        """Variances of every output by group of operations, shape (total, slots) each; arguments as for carried()."""
        parts = []
        for first in range(0, total, GROUPS_AT_ONCE):
            end = min(first + GROUPS_AT_ONCE, total)
            rows = [group - first if first <= group < end else None for group in groups]
            parts.append(self.carried(rows, end - first, levels, scales))
        return [np.concatenate(of_output) for of_output in zip(*parts, strict=True)]

    def carried(
        self, rows: Sequence[int | None], count: int, levels: Sequence[int], scales: Sequence[float]
    ) -> list[Variance]:
        """Variances of every output, shape (count, slots) each.

        Args:
            rows: in which of them each operation's own error counts, None for none.
            scales: of every value, but of a MULTIPLY_PLAIN that of its plaintext.
        """
        live: dict[int, Variance | None] = {}  # None where there is no error yet
        for number, op in self.circuit:
            before = [live[a] for a in op.args]
            after = self._passed_on(op, before)
            row = None if op.kind in _EXACT else rows[number]
            if row is not None:
                if after is None:
                    after = np.zeros((count, self.circuit.slots))
                elif any(after is x for x in before):
                    after = after.copy()
                after[row] += self._added(op, levels[number], scales[number])
            live[number] = after
            for argument in set(op.args):
                if self.circuit.last_use[argument] == number:
                    del live[argument]
        nothing = np.zeros((count, self.circuit.slots))
        found = [live[o] for o in self.circuit.outputs]
        return [nothing if variances is None else variances for variances in found]

    def _passed_on(self, op: Op, args: list[Variance | None]) -> Variance | None:
        """What an operation makes of the errors of its arguments."""
        parts = [x for x in args if x is not None]
        if not parts:
            return None
        match op.kind:
            case Kind.ADD if len(parts) == len(args):
                return parts[0] + parts[1]
            case Kind.MULTIPLY_PLAIN:
                scaled: Variance = parts[0] * self.circuit.constants[op.constant] ** 2
                return scaled
            case Kind.MULTIPLY:
                cross = 4.0 if op.args[0] == op.args[1] else 2.0  # the error of x^2 is 2 x e, fully correlated
                powers = [self.power[a] for a in reversed(op.args)]
                crossed = [power * x for power, x in zip(powers, args, strict=True) if x is not None]
                both: Variance = cross / 2 * (crossed[1] + crossed[0] if len(crossed) > 1 else crossed[0])
                return both
            case Kind.ROTATE:
                return np.roll(parts[0], -op.step, axis=-1)
            case _:
                return parts[0]

    def _added(self, op: Op, level: int, scale: float) -> Variance | float:
        """The error of an operation's own."""
        match op.kind:
            case Kind.INPUT:
                return self._slot(_FRESH + _ROUNDING, scale)
            case Kind.ADD_PLAIN:
                return self._slot(_ROUNDING, scale)
            case Kind.MULTIPLY_PLAIN:
                is_scalar = self.circuit.constants[op.constant].size == 1
                encoding = _ROUNDING / scale**2 if is_scalar else self._slot(_ROUNDING, scale)
                encoded: Variance = self.power[op.args[0]] * encoding
                return encoded
            case Kind.RESCALE:
                return self._slot(self._rounded, scale)
            case _:
                return self._key_switch(level, scale)

    def _slot(self, variance: float, scale: float) -> float:
        return self.degree / 2 * variance / scale**2

    def _key_switch(self, level: int, scale: float) -> Variance:
        digits = digits_variance(self.parameters, level)
        return digits / scale**2 + self._slot(self._rounded, scale)

    @property
    def _rounded(self) -> float:
        return _ROUNDING * (1 + 2 * self.degree / 3)


def fresh_variance(degree: int) -> float:
    """Of a slot of a fresh ciphertext, at scale one."""
    return degree / 2 * (_FRESH + _ROUNDING)


def rounding_variance(degree: int) -> float:
    """Of a slot of a polynomial whose coefficients are rounded, at scale one."""
    return degree / 2 * _ROUNDING


def digits_variance(parameters: Parameters, level: int) -> Variance:
    """Of every slot after a key switch, by the keys' errors times the digits, at scale one."""
    around, mean = digits_variances(parameters, level)
    total: Variance = around + mean
    return total


def digits_variances(parameters: Parameters, level: int) -> tuple[float, Variance]:
    """The same by what digits are around their mean, and by that mean, which is the same in every switch."""
    primes, degree = np.array(parameters.primes_at(level), dtype=np.float64), parameters.ring_degree
    size = _FRESH * float(np.sum((primes / parameters.special_prime) ** 2))
    return size * degree**2 / 24, size * degree / 2 * _inverse_distance_to_one(degree)


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

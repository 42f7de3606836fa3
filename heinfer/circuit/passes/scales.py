"""Scale assignment: at how many bits of scale each layer's result lands.

The input scale follows from the declared range of the inputs and the output scale from that of the scores, so that the
manifest, which names both, tells nothing of the weights. In between, the objective is the predicted noise
of the outputs; the constraint is that no value can reach half the modulus at its level.

All plaintexts of a layer are encoded at the scale that makes their products land on the target after the rescale, in
the very doubles that SEAL computes. A layer that reads tensors of several scales has one such scale for each, and its
products, which are added up, agree to the last bit or nearly so, and so do those that are added to a product of
ciphertexts, whose scale nobody chooses: half a step of the factor is below the relative
2^-52 that SEAL takes for equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from math import ceil, floor, inf, log2, nan, nextafter, prod

import numpy as np

from heinfer.circuit.annotate import ValueType, type_of
from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.levels import levels
from heinfer.circuit.noise import Variance, noise_at_unit_scales
from heinfer.circuit.passes.alike import alike_in_scale
from heinfer.circuit.precision import LEAST_BITS, Scores
from heinfer.circuit.statistics import Statistics
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.errors import RangeError

_INPUT_BITS = 34.0
"""Scale of a fresh ciphertext of inputs near one: its noise is then 2^-26 of one, far below that of a rescale."""
_NEAR_ONE_BITS = 2.0
"""Inputs whose range ends within so many of one, as those of normalised images, have that scale."""

_FIRST_BITS = (24.0, 26.0, 28.0, 30.0)
"""Of which the search begins with the first that leaves every factor in its range: wider primes take larger scales."""
_FINER_BITS = tuple(24.0 + 0.5 * i for i in range(13))
"""From which it begins where none of those does: a power in a series has its factors' scales together, less a prime."""
_SPARE_BITS = 4
"""That the output scale may give up where sums on the way to the scores, or their bias, need more room than they."""
_OUTPUT_STEP = 0.125
"""To which the output scale is rounded down, so that it tells no more of the range of the scores than that."""
_FACTOR_BITS = (8.0, 30.0)
"""Least and most scale of a plaintext factor; the less scale inputs have, the more factors may, and vice versa."""
_STEPS = (4.0, 2.0, 1.0, 0.5)
_FREE_BITS = 0.125
"""Of precision, which headroom may cost in any case: where noise comes from elsewhere, whole bits cost no more."""
_WORTHWHILE = 0.99  # a move must lower the noise by one percent


@dataclass(frozen=True)
class Scales:
    """Bits of scale of the fresh input and of what each layer with plaintext factors gives (0 for the others)."""

    input_bits: float
    layer_bits: tuple[float, ...]

    def moved(self, layer: int, by: float) -> Scales:
        bits = list(self.layer_bits)
        bits[layer] += by
        return replace(self, layer_bits=tuple(bits))


def input_bits(largest: float, parameters: Parameters, level: int) -> float:
    """The scale of inputs whose declared range ends at +-largest: the product of both is the same for any, nearly.

    It follows from what the manifest says anyway. SEAL wants the scale itself to fit the modulus, too.

    Raises:
        RangeError: when inputs that large fit no modulus.
    """
    beyond = log2(largest)
    if abs(beyond) < _NEAR_ONE_BITS:
        return _INPUT_BITS
    room = sum(log2(q) for q in parameters.primes_at(level)) - 2
    if beyond >= room:
        raise RangeError(f"the input: values up to {largest:.3g} fit no modulus: declare the range that inputs have")
    return float(min(max(_INPUT_BITS - round(beyond), 0), floor(room)))


def assign_scales(circuit: Circuit, parameters: Parameters, level: int, scales: Scales) -> TypedCircuit:
    """Return the circuit with the scale of every plaintext factor set.

    Args:
        level: of the inputs.
    """
    input_scale = float(2.0**scales.input_bits)
    types: list[ValueType] = []
    ops: list[Op] = []
    products: dict[
        int, tuple[float, float]
    ] = {}  # of each layer: the first scale it multiplies, and that of its product
    for _, op in circuit:
        arguments = [types[a] for a in op.args]
        scaled = op
        if op.kind is Kind.MULTIPLY_PLAIN:
            prime, scale = parameters.data_primes[arguments[0].level], arguments[0].scale
            first, product = products.get(op.layer, (scale, 0.0))
            if scale == first:
                factor = _factor_scale(scale, prime, 2.0 ** scales.layer_bits[op.layer])
                products[op.layer] = scale, scale * factor
            else:
                factor = _factor_scale(scale, 1, product)
            scaled = replace(op, scale=factor)
        ops.append(scaled)
        types.append(type_of(scaled, arguments, parameters, level, input_scale))
        if op.kind is Kind.MULTIPLY:  # what a product of ciphertexts is added to has its scale
            products[op.layer] = nan, types[-1].scale
    return TypedCircuit(replace(circuit, ops=tuple(ops)), parameters, level, input_scale)


def _factor_scale(scale: float, prime: int, target: float) -> float:
    """The factor's scale such that scale * factor / prime is the target, to the last bit where a double allows it."""
    nearest = target * prime / scale
    around = (nearest, nextafter(nearest, inf), nextafter(nearest, 0))
    return next((factor for factor in around if scale * factor / prime == target), nearest)


def choose_scales(
    circuit: Circuit,
    parameters: Parameters,
    level: int,
    statistics: Statistics,
    scores: Scores,
    headroom: int | None = None,
    input_bits: float = _INPUT_BITS,
    least_bits: float = LEAST_BITS,
) -> Scales:
    """Return the scales with the least predicted noise, by coordinate descent.

    Args:
        headroom: bits to keep free at the output beyond the bounds of the values; None for as many as leave the
            bound on the precision at the least bits, or cost next to none of it.
        input_bits: of the scale of inputs.
        least_bits: of precision that such headroom leaves.

    Raises:
        RangeError: when not even low scales leave room for the values.
    """
    search = _Search(circuit, parameters, level, statistics, scores, input_bits)
    multiplied = {op.layer for op in circuit.ops if op.kind is Kind.MULTIPLY}
    layers = sorted({op.layer for op in circuit.ops if op.kind is Kind.MULTIPLY_PLAIN} - multiplied)
    best, _ = search.best(layers, headroom or 0)
    if headroom is not None:
        return best
    least = min(least_bits, scores.bound_on_bits(search.variances(best)) - _FREE_BITS)
    while True:
        lower = best.moved(layers[-1], -1.0)
        noise_then = search.noise(lower)
        if noise_then is None:
            return best
        for step in _STEPS[2:]:
            lower, noise_then = search.descend(lower, noise_then, layers[:-1], step)
        variances = search.variances(lower)
        if scores.bound_on_bits(variances) < least or not scores.are_clear(scores.deviations(variances)):
            return best
        best = lower


class _Search:
    """What the search looks at: of operations that always agree in level and scale, one and their largest bound."""

    def __init__(
        self,
        circuit: Circuit,
        parameters: Parameters,
        level: int,
        statistics: Statistics,
        scores: Scores,
        input_bits: float,
    ) -> None:
        self.circuit = circuit
        self.parameters = parameters
        self.input_bits = input_bits
        lower = _INPUT_BITS - input_bits
        self.factor_bits = _FACTOR_BITS[0] + min(lower, 0.0), _FACTOR_BITS[1] + max(lower, 0.0)
        self.level = level
        self.scores = scores
        self.levels = levels(circuit, level)
        self.bounds = np.maximum(statistics.bounds, 1.0)  # SEAL wants the scale itself to fit, too
        self.outputs = circuit.outputs
        alike = alike_in_scale(circuit)
        self.skeleton, self.of_value = alike.skeleton, alike.of_value
        self.largest = np.zeros(len(self.skeleton.ops))
        np.maximum.at(self.largest, np.array(alike.of_value), self.bounds)
        self.sources, groups = alike.sources(circuit)
        self.parts = noise_at_unit_scales(circuit, parameters, self.levels, statistics, groups)

    def best(self, layers: list[int], headroom: int) -> tuple[Scales, float]:
        """The best scales with so many bits free at the output, and their noise."""
        begin = next(self.beginnings(layers, headroom), None)
        if begin is None:
            raise RangeError(self.no_room(layers, headroom))
        scales, noise = begin
        for step in _STEPS:
            scales, noise = self.descend(scales, noise, layers[:-1], step)
        return scales, noise

    def beginnings(self, layers: list[int], headroom: int) -> Iterator[tuple[Scales, float]]:
        """Scales that the circuit allows, with their noise: the largest output scale first."""
        less = headroom + np.arange(0, _SPARE_BITS + _OUTPUT_STEP, _OUTPUT_STEP)
        tried = (product(self.output_bits() - less, first_bits) for first_bits in (_FIRST_BITS, _FINER_BITS))
        for output_bits, first_bits in chain.from_iterable(tried):
            bits = [0.0] * len(self.skeleton.layers)
            for layer in layers[:-1]:
                bits[layer] = first_bits
            bits[layers[-1]] = float(output_bits)
            scales = Scales(self.input_bits, tuple(bits))
            noise = self.noise(scales)
            if noise is not None:
                yield scales, noise

    def no_room(self, layers: list[int], headroom: int) -> str:
        """Which layer has least room for its values, or its factors, at the lowest scales; and the way out."""
        circuit = self.circuit
        bits = [0.0] * len(circuit.layers)
        for layer in layers[:-1]:
            bits[layer] = _FIRST_BITS[0]
        bits[layers[-1]] = self.output_bits() - headroom - _SPARE_BITS
        scaled = self._scaled(Scales(self.input_bits, tuple(bits)))
        short = [
            log2(bound) + log2(kind.scale) - self._room(kind.level)
            for bound, kind in zip(self.largest, scaled.types, strict=True)
        ]
        free = f", with {headroom} bits of headroom (keep fewer free)" if headroom else ""
        if max(short) >= 0:
            values = np.where(np.array(self.of_value) == int(np.argmax(short)), self.bounds, 0.0)
            worst = int(values.argmax())
            return (
                f"{circuit.layer_name(circuit.ops[worst])}: values up to {values[worst]:.3g} need {max(short) + 1:.1f} "
                f"bits more than there are{free}: normalise what it reads, so that its values are "
                f"{2 ** ceil(max(short) + 1)} times smaller, or calibrate on inputs with a smaller range"
            )
        least, most = self.factor_bits
        beyond = [
            (max(least - log2(op.scale), log2(op.scale) - most), op.layer)
            for op in scaled.circuit.ops
            if op.kind is Kind.MULTIPLY_PLAIN
        ]
        distance, layer = max(beyond)
        return (
            f"{circuit.layers[layer].name}: its weights would have to be encoded {distance:.1f} bits beyond the "
            f"{least:.0f} to {most:.0f} that scales of weights may have{free}: the values that it reads, or gives, "
            "have no room for more; normalise them, or calibrate on inputs with a smaller range"
        )

    def output_bits(self) -> float:
        """The most bits, in whole steps, at which the declared range of the scores fits their level."""
        fits = min(log2(prod(self.parameters.primes_at(self.levels[o])) / 2 / self.bounds[o]) for o in self.outputs)
        return _OUTPUT_STEP * floor(fits / _OUTPUT_STEP)

    def noise(self, scales: Scales) -> float | None:
        """Median variance of a score, None when a value could overflow or a factor's scale is out of its range."""
        scaled = self._scaled(scales)
        factors = [log2(op.scale) for op in scaled.circuit.ops if op.kind is Kind.MULTIPLY_PLAIN]
        if min(factors) < self.factor_bits[0] or max(factors) > self.factor_bits[1]:
            return None
        if not self._fits(scaled.types):
            return None
        return float(np.median(self.scores.deviations(self._variances(scaled)))) ** 2

    def variances(self, scales: Scales) -> list[Variance]:
        """Output variances of scales that the circuit allows."""
        return self._variances(self._scaled(scales))

    def _variances(self, scaled: TypedCircuit) -> list[Variance]:
        used = [
            scaled.circuit.ops[number].scale if is_factor else scaled.types[number].scale
            for number, is_factor in self.sources
        ]
        shares = np.array(used) ** -2.0
        return [shares @ part for part in self.parts]

    def _scaled(self, scales: Scales) -> TypedCircuit:
        return assign_scales(self.skeleton, self.parameters, self.level, scales)

    def _room(self, level: int) -> float:
        """Bits of half the modulus."""
        return sum(log2(q) for q in self.parameters.primes_at(level)) - 1

    def _fits(self, types: Sequence[ValueType]) -> bool:
        room = [self._room(level) for level in range(self.level + 1)]
        return all(
            log2(bound) + log2(kind.scale) < room[kind.level] for bound, kind in zip(self.largest, types, strict=True)
        )

    def descend(self, best: Scales, noise: float, layers: list[int], step: float) -> tuple[Scales, float]:
        """Move single targets by a step as long as the noise falls."""
        moves = [(layer, by) for layer in layers for by in (step, -step)]
        improved = True
        while improved:
            improved = False
            for move in moves:
                tried = best.moved(*move)
                found = self.noise(tried)
                if found is not None and found < _WORTHWHILE * noise:
                    best, noise, improved = tried, found, True
        return best, noise

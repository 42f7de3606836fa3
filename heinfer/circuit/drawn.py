"""Encrypted runs without keys: every operation's error is drawn, slot by slot, image by image.

What a variance for each slot cannot say is in it: copies of a value whose errors are equal, sums of values that share
an error, errors that grow with the image, plaintext factors whose rounding is the same in every run, and keys by which
some slots are noisier than others in all runs of a client.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.encoding import rounded, to_slots
from heinfer.circuit.interpret import SlotBatch, evaluate
from heinfer.circuit.ir import Kind, Op
from heinfer.circuit.noise import digits_variances, fresh_variance, rounding_variance
from heinfer.circuit.typed import TypedCircuit

RUNS_A_KEY = 16
"""Inputs that are run under each secret that is drawn, as near as can be."""

_SLOTS_AT_ONCE = 1 << 17
"""Of one value: two or three such values stay in the cache."""
_LEAST_PARTS = 2
_SLOTS_OF_ALL = 1 << 27
"""Of all values of all inputs: what is drawn in a second."""


def run_noisy(typed: TypedCircuit, inputs: SlotBatch, seed: int = 0) -> SlotBatch:
    """What (batch, ciphertexts, slots) would decrypt to, shape (batch, outputs, slots).

    Args:
        seed: of the errors and the secrets.
    """
    rng, at_once = np.random.default_rng(seed), _at_once(inputs.shape[-1])
    keys = keys_of(len(inputs))
    secrets = rng.integers(-1, 2, (keys.max() + 1, typed.parameters.ring_degree)).astype(np.float64)
    drawn = _Drawn(typed, secrets, rng, seed)
    parts = (slice(first, first + at_once) for first in range(0, len(inputs), at_once))
    return np.concatenate([drawn.run(inputs[part], keys[part]) for part in parts])


def keys_of(inputs: int) -> NDArray[np.int64]:
    """Under which of the secrets each of so many inputs is run."""
    return np.arange(inputs) % max(1, inputs // RUNS_A_KEY)


def drawn_at_most(typed: TypedCircuit) -> int:
    """Inputs that tell how large errors are, and take no longer than a calibration does."""
    slots = typed.circuit.slots
    return max(_LEAST_PARTS * _at_once(slots), _SLOTS_OF_ALL // (slots * len(typed.circuit.ops)))


def _at_once(slots: int) -> int:
    return max(8, _SLOTS_AT_ONCE // slots)


class _Drawn:
    def __init__(self, typed: TypedCircuit, secrets: NDArray[np.float64], rng: np.random.Generator, seed: int) -> None:
        self.typed, self.rng, self.seed = typed, rng, seed
        # Of the rounding of both halves of a ciphertext, the second one times the secret: variance at scale one.
        rounding = rounding_variance(typed.parameters.ring_degree) * (1 + np.abs(to_slots(secrets)) ** 2)
        self.by_key = self.rounding = np.sqrt(rounding)

    def run(self, inputs: SlotBatch, keys: NDArray[np.int64]) -> SlotBatch:
        circuit = self.typed.circuit
        self.keys, self.rounding = keys, self.by_key[keys]
        live: dict[int, SlotBatch] = {}
        results: dict[int, SlotBatch] = {}
        for number, op in circuit:
            live[number] = self._result(number, op, [live[a] for a in op.args], inputs)
            if number in circuit.outputs:
                results[number] = live[number]
            for argument in {*op.args, number}:
                if circuit.last_use.get(argument, -1) <= number:
                    live.pop(argument, None)
        return np.stack([results[o] for o in circuit.outputs], axis=1)

    def _result(self, number: int, op: Op, args: list[SlotBatch], inputs: SlotBatch) -> SlotBatch:
        typed, circuit = self.typed, self.typed.circuit
        scale = typed.types[number].scale
        match op.kind:
            case Kind.MULTIPLY_PLAIN:
                product: SlotBatch = args[0] * rounded(circuit.constants[op.constant], op.scale)
                return product
            case Kind.ADD_PLAIN:
                total: SlotBatch = args[0] + rounded(circuit.constants[op.constant], scale)
                return total
        value = evaluate(op, args, circuit, inputs)
        match op.kind:
            case Kind.INPUT:
                value = value + self._normal(value) * (np.sqrt(fresh_variance(2 * circuit.slots)) / scale)
            case Kind.RESCALE:
                value = value + self._normal(value) * (self.rounding / scale)
            case Kind.ROTATE | Kind.RELINEARIZE:
                variance, shift = self._switched(op.step, typed.types[number].level)
                value = value + (self._normal(value) * np.sqrt(variance + self.rounding**2) + shift) / scale
        return value

    def _switched(self, step: int, level: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Variance (inputs, slots) of what digits add in a key switch, and what their mean adds, at scale one.

        The error of a key at a slot's root is the same in every switch: a complex normal number for each digit.
        """
        around, mean = digits_variances(self.typed.parameters, level)
        key = np.random.default_rng((self.seed, step))
        shape = (len(self.by_key), self.typed.circuit.slots)
        size = key.standard_gamma(level + 1, shape) / (level + 1)
        shift = key.standard_normal(shape) * np.sqrt(mean)
        return around * size[self.keys], shift[self.keys]

    def _normal(self, like: SlotBatch) -> NDArray[np.float64]:
        return self.rng.standard_normal(like.shape)

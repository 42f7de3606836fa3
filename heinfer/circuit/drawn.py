"""Encrypted runs without keys: every operation's error is drawn, slot by slot, image by image.

What a variance for each slot cannot say is in it: copies of a value whose errors are equal, sums of values that share
an error, errors that grow with the image, plaintext factors whose rounding is the same in every run, and a secret key
by which some slots are noisier than others in all runs of a client.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.encoding import rounded, to_slots
from heinfer.circuit.interpret import SlotBatch, evaluate
from heinfer.circuit.ir import Kind, Op
from heinfer.circuit.noise import digits_variance, fresh_variance, rounding_variance
from heinfer.circuit.typed import TypedCircuit

KEYS = 4
"""Secrets that are drawn; inputs have them in turn."""

_SLOTS_AT_ONCE = 1 << 17
"""Of one value: two or three such values stay in the cache."""
_PARTS = 2


def run_noisy(typed: TypedCircuit, inputs: SlotBatch, seed: int = 0) -> SlotBatch:
    """What (batch, ciphertexts, slots) would decrypt to, shape (batch, outputs, slots).

    Args:
        seed: of the errors and the secrets.
    """
    rng, at_once = np.random.default_rng(seed), _at_once(inputs.shape[-1])
    parts = [inputs[first : first + at_once] for first in range(0, len(inputs), at_once)]
    secrets = rng.integers(-1, 2, (KEYS, typed.parameters.ring_degree)).astype(np.float64)
    return np.concatenate([_Drawn(typed, secrets, rng).run(part) for part in parts])


def drawn_at_most(slots: int) -> int:
    """Inputs that tell how large errors are, and take no longer than a calibration does."""
    return _PARTS * _at_once(slots)


def _at_once(slots: int) -> int:
    return max(8, _SLOTS_AT_ONCE // slots)


class _Drawn:
    def __init__(self, typed: TypedCircuit, secrets: NDArray[np.float64], rng: np.random.Generator) -> None:
        self.typed, self.rng = typed, rng
        # Of the rounding of both halves of a ciphertext, the second one times the secret: variance at scale one.
        rounding = rounding_variance(typed.parameters.ring_degree) * (1 + np.abs(to_slots(secrets)) ** 2)
        self.rounding = np.sqrt(rounding)

    def run(self, inputs: SlotBatch) -> SlotBatch:
        circuit = self.typed.circuit
        self.rounding = self.rounding[np.arange(len(inputs)) % KEYS]
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
                digits = digits_variance(typed.parameters, typed.types[number].level)
                value = value + self._normal(value) * (np.sqrt(digits + self.rounding**2) / scale)
        return value

    def _normal(self, like: SlotBatch) -> NDArray[np.float64]:
        return self.rng.standard_normal(like.shape)

"""SEAL and the native library in one ring, with the same keys and ciphertexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import thread_time

import numpy as np

from heinfer.backends.native import NativeKeys, NativeProgram, NativeRing
from heinfer.backends.native.instructions import Instruction, Residues
from heinfer.backends.native.library import library
from heinfer.backends.native.plan import plan_instructions
from heinfer.backends.native.ring import Words
from heinfer.backends.seal.program import TensealProgram
from heinfer.circuit.ir import Circuit
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.seal import Ring
from heinfer.ckks.secret import SecretSide
from heinfer.formats.seal_reader import read_ciphertext, read_key
from heinfer.formats.seal_writer import write_ciphertext, write_keys

SCALE = 2.0**12
"""Times do not depend on values."""


class NativeBench:
    """A fresh secret key, keys for some steps and for relinearization, ciphertexts of random slots at the top level.

    Attributes:
        parameters: of both rings.
        ring: the native one.
    """

    def __init__(self, parameters: Parameters, steps: Sequence[int], ciphertexts: int) -> None:
        self.parameters = parameters
        self.ring = NativeRing.secure(parameters)
        self._seal = Ring.secure(parameters)
        secret = SecretSide.generate_in(self._seal)
        self._side = EvaluationSide(self._seal)
        frames = [read_key(secret.relinearization_key(), parameters, 0)]
        frames += [read_key(secret.galois_key(step), parameters, step) for step in steps]
        self._side.load_keys(*write_keys(frames, parameters))
        self._keys = NativeKeys(self.ring, dict.fromkeys([0, *steps], parameters.top_level))
        for key in frames:
            self._keys.add(key.step, key.digits, [seed.data for seed in key.seeds])
        slots = np.random.default_rng(0).uniform(-1, 1, (ciphertexts, parameters.slots))
        read = [read_ciphertext(secret.encrypt(row, parameters.top_level, SCALE), parameters) for row in slots]
        self._seal_inputs = [self._side.load_ciphertext(write_ciphertext(c, parameters)) for c in read]
        primes = parameters.primes_at(parameters.top_level)
        self._inputs: list[tuple[Words, Words]] = []
        for ciphertext in read:
            assert ciphertext.seed is not None
            self._inputs.append((ciphertext.c0, self.ring.expand(ciphertext.seed.data, primes)))

    def seal(self, circuit: Circuit) -> Callable[[], float]:
        """What runs a circuit on SEAL, and returns its seconds of the processor."""
        program = TensealProgram(self._typed(circuit), self._seal)
        inputs = self._seal_inputs[: circuit.inputs]
        return lambda: _seconds(lambda: program.run(inputs, self._side))

    def native(self, circuit: Circuit) -> Callable[[], float]:
        """What runs a circuit on the native library, on one thread."""
        program = NativeProgram(self._typed(circuit), self.ring)
        inputs = self._inputs[: circuit.inputs]
        return lambda: _seconds(lambda: program.run(inputs, self._keys))

    def native_instructions(
        self, circuit: Circuit, residues: Sequence[Residues], instructions: Sequence[Instruction]
    ) -> Callable[[], float]:
        """What runs given instructions, without constants, for a circuit's inputs and outputs."""
        plan = plan_instructions(self._typed(circuit), residues, instructions)
        program = library().Program(
            self.ring.handle, plan.value_array, plan.code_array, plan.inputs, circuit.outputs, plan.arena.rows
        )
        program.load([], [], 1)
        rows = [half for pair in self._inputs[: circuit.inputs] for half in pair]
        return lambda: _seconds(lambda: program.run(rows, self._keys.handle, 1, library().Control()))

    def _typed(self, circuit: Circuit) -> TypedCircuit:
        return TypedCircuit(circuit, self.parameters, self.parameters.top_level, SCALE)


def _seconds(run: Callable[[], object]) -> float:
    """Of a second run: what was measured before it has filled the caches with something else."""
    run()
    started = thread_time()
    run()
    return thread_time() - started

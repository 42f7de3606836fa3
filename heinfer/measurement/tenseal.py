"""The bench of the tenseal backend: the programs, keys and ciphertexts that a server has, made in one process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heinfer.backends.seal.program import TensealProgram
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.seal import Ring, SealObject
from heinfer.ckks.secret import SecretSide
from heinfer.formats.seal_reader import read_ciphertext, read_key
from heinfer.formats.seal_writer import write_ciphertext, write_keys


class TensealBench:
    """A ring with a fresh secret key and evaluation keys; see heinfer.measurement.measure.Bench.

    Args:
        steps: rotations that there will be keys for.
    """

    backend = "tenseal"
    hoists = False

    def __init__(self, parameters: Parameters, steps: Sequence[int]) -> None:
        self.parameters = parameters
        self.steps = steps
        self._ring = Ring.secure(parameters)
        self._secret = SecretSide.generate_in(self._ring)
        self._side = EvaluationSide(self._ring)
        keys = [read_key(self._secret.relinearization_key(), parameters, 0)]
        keys += [read_key(self._secret.galois_key(step), parameters, step) for step in steps]
        self._side.load_keys(*write_keys(keys, parameters))

    def encrypt(self, count: int, level: int, scale: float) -> Sequence[SealObject]:
        """Ciphertexts of random slots."""
        slots = np.random.default_rng(0).uniform(-1, 1, (count, self.parameters.slots))
        frames = [read_ciphertext(self._secret.encrypt(row, level, scale), self.parameters) for row in slots]
        return [self._side.load_ciphertext(write_ciphertext(frame, self.parameters)) for frame in frames]

    def encode(self, typed: TypedCircuit) -> TensealProgram:
        """The program of a circuit, with its constants encoded."""
        return TensealProgram(typed, self._ring)

    def run(self, program: TensealProgram, inputs: Sequence[SealObject]) -> None:
        """Evaluate a program."""
        program.run(inputs, self._side)

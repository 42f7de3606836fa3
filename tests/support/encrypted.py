"""Running a compiled model encrypted, in one process: the way from slots to slots through real SEAL and real frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heinfer.backends.seal.program import TensealProgram
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.seal import Ring
from heinfer.ckks.secret import SecretSide
from heinfer.compiler.model import CompiledModel
from heinfer.formats.seal_reader import read_ciphertext, read_key
from heinfer.formats.seal_writer import write_ciphertext, write_keys


@dataclass(frozen=True, eq=False)
class EncryptedRun:
    """Keys and program of one compiled model in a ring."""

    model: CompiledModel
    ring: Ring

    @cached_property
    def secret(self) -> SecretSide:
        return SecretSide.generate_in(self.ring)

    @cached_property
    def evaluation(self) -> EvaluationSide:
        parameters, keys = self.ring.parameters, self.model.manifest.keys
        frames = [
            read_key(
                self.secret.galois_key(step) if step else self.secret.relinearization_key(), parameters, step
            ).trimmed(level)
            for step, level in keys.levels.items()
        ]
        side = EvaluationSide(self.ring)
        side.load_keys(*write_keys(frames, parameters))
        return side

    @cached_property
    def program(self) -> TensealProgram:
        return TensealProgram(self.model.bundle.typed, self.ring)

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of one input of shape input_shape, evaluated encrypted."""
        part, parameters = self.model.manifest.input, self.ring.parameters
        sent = [self.secret.encrypt(v, part.level, part.scale) for v in self.model.plan.input.pack(x)]
        frames = [read_ciphertext(data, parameters) for data in sent]
        loaded = [self.evaluation.load_ciphertext(write_ciphertext(frame, parameters)) for frame in frames]
        results = [self.evaluation.save_ciphertext(c) for c in self.program.run(loaded, self.evaluation)]
        returned = [write_ciphertext(read_ciphertext(data, parameters), parameters) for data in results]
        return self.model.plan.output.unpack(np.stack([self.secret.decrypt(data).real for data in returned]))


def precision_bits(got: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """-log2(max |error| / max |expected|)."""
    return float(-np.log2(np.abs(got - expected).max() / np.abs(expected).max()))

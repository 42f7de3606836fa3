"""The unit of time: one rotation by the SEAL that is in tenseal, at the top level of a model's parameters."""

from __future__ import annotations

from time import perf_counter

import numpy as np
from tenseal import sealapi

from benchmarks.subject import Subject
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.formats.seal_reader import read_ciphertext, read_key
from heinfer.formats.seal_writer import write_ciphertext, write_keys


class Rotation:
    """A fresh ciphertext at the top level and a Galois key, ready to be rotated."""

    def __init__(self, subject: Subject) -> None:
        parameters, manifest = subject.codec.parameters, subject.codec.manifest
        self._step = manifest.keys.steps[0]
        self._side = EvaluationSide.create(parameters)
        # A key of its own, whole: the model's may be for lower levels than this rotation's.
        key = read_key(subject.secret.galois_key(self._step), parameters, self._step)
        self._side.load_keys(*write_keys([key], parameters))
        level, scale = parameters.top_level, manifest.input.scale
        slots = np.linspace(-1, 1, parameters.slots)
        ciphertext = read_ciphertext(subject.secret.encrypt(slots, level, scale), parameters)
        self._ciphertext = self._side.load_ciphertext(write_ciphertext(ciphertext, parameters))

    def seconds(self) -> float:
        """Time one rotation; the key is there, so that SEAL does not compose it of several."""
        self._side.require_step(self._step)
        result = sealapi.Ciphertext()
        started = perf_counter()
        self._side.evaluator.rotate_vector(self._ciphertext, self._step, self._side.galois_keys, result)
        return perf_counter() - started

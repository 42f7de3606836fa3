"""What a worker process does: the models' programs, clients' loaded keys, and SEAL.

SEAL holds the interpreter lock while it computes, and a fault in it ends the process: no other process loads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from traceback import format_exc

from heinfer.backends.tenseal import TensealProgram
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.seal import Ring, SealObject
from heinfer.errors import HeinferError
from heinfer.formats.bundle import Bundle
from heinfer.formats.frames import decode_ciphertexts, decode_keys, encode_ciphertexts
from heinfer.formats.seal_reader import read_ciphertext
from heinfer.formats.seal_writer import write_ciphertext, write_keys
from heinfer_server.tasks import Evaluated, EvaluationTask, TaskFailure


class _Model:
    """A model's program, and its frames as SEAL's objects."""

    def __init__(self, bundle: Bundle) -> None:
        self._manifest = bundle.manifest
        self._parameters = bundle.manifest.to_parameters()
        self._ring = Ring.secure(self._parameters)
        plan = self._manifest.input
        self._program = TensealProgram(bundle.circuit, self._ring, plan.level, plan.scale)

    def open_keys(self, frame: bytes) -> EvaluationSide:
        listed = self._manifest.keys
        keys = decode_keys(frame, self._parameters, steps=listed.steps, relinearization=listed.relinearization)
        side = EvaluationSide(self._ring)
        side.load_keys(*write_keys(keys, self._parameters))
        return side

    def open_inputs(self, frame: bytes, side: EvaluationSide) -> list[SealObject]:
        plan = self._manifest.input
        inputs = decode_ciphertexts(
            frame, self._parameters, count=plan.layout.ciphertexts, level=plan.level, scale=plan.scale, seeded=True
        )
        return [side.load_ciphertext(write_ciphertext(ciphertext, self._parameters)) for ciphertext in inputs]

    def evaluate(self, inputs: list[SealObject], side: EvaluationSide) -> list[SealObject]:
        return self._program.run(inputs, side)

    def close_outputs(self, outputs: list[SealObject], side: EvaluationSide) -> bytes:
        frames = [read_ciphertext(side.save_ciphertext(output), self._parameters) for output in outputs]
        return encode_ciphertexts(self._parameters, frames)


class Evaluator:
    """Programs by model, and evaluation sides with their keys loaded by key id.

    Which keys to load and to forget is the parent's to say: it alone knows who is still registered.
    """

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        self._models: Mapping[str, _Model] = {bundle.manifest.name: _Model(bundle) for bundle in bundles}
        self._sides: dict[str, EvaluationSide] = {}

    def forget(self, key_ids: Sequence[str]) -> None:
        """Let go of loaded keys."""
        for key_id in key_ids:
            del self._sides[key_id]

    def run(self, task: EvaluationTask) -> Evaluated | TaskFailure:
        """Evaluate one request; after a failure its keys are no longer loaded."""
        self.forget(task.forget)
        try:
            return self._evaluate(task)
        except Exception as error:
            self._sides.pop(task.key_id, None)
            return TaskFailure(error if isinstance(error, HeinferError) else None, format_exc())

    def _evaluate(self, task: EvaluationTask) -> Evaluated:
        model = self._models[task.model]
        started = perf_counter()
        if task.keys is not None:
            self._sides[task.key_id] = model.open_keys(task.keys.frame)
        side = self._sides[task.key_id]
        keys_seconds = perf_counter() - started
        inputs = model.open_inputs(task.inputs, side)
        started = perf_counter()
        outputs = model.evaluate(inputs, side)
        evaluation_seconds = perf_counter() - started
        return Evaluated(model.close_outputs(outputs, side), keys_seconds, evaluation_seconds)

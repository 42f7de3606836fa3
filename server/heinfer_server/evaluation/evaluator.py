"""What a worker process does: the models' circuits on a backend, and clients' loaded keys.

On SEAL, a computation holds the interpreter lock and a fault ends the process: no other process loads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from mmap import mmap
from time import perf_counter
from traceback import format_exc

from heinfer.backends import Handle, NativeOptions, RingHandle, open_ring, open_runtime
from heinfer.backends.control import RunControl
from heinfer.circuit.counts import Counts
from heinfer.ckks.parameters import Parameters
from heinfer.errors import HeinferError
from heinfer.formats.bindings import evaluation_binding, manifest_binding
from heinfer.formats.bundle import Bundle
from heinfer.formats.frames import decode_ciphertexts, decode_keys, encode_ciphertexts
from heinfer_server.evaluation.progress import Watcher
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, Setup, TaskFailure
from heinfer_server.models import digest_of


class _Model:
    """A version of a model on a backend, between frames."""

    def __init__(self, bundle: Bundle, backend: str, options: NativeOptions, ring: RingHandle) -> None:
        self._manifest = bundle.manifest
        self._binding = manifest_binding(bundle.manifest.to_bytes())
        self._parameters = bundle.typed.parameters
        self._runtime = open_runtime(bundle.typed, backend=backend, options=options, ring=ring)

    @property
    def executed(self) -> Counts:
        return self._runtime.executed

    def open_keys(self, frame: mmap) -> Handle:
        manifest = self._manifest
        return self._runtime.load_keys(
            decode_keys(frame, self._parameters, manifest.keys_binding, manifest.keys.levels)
        )

    def open_inputs(self, frame: bytes) -> Handle:
        spec = self._manifest.input
        inputs = decode_ciphertexts(
            frame,
            self._parameters,
            self._binding,
            count=spec.layout.ciphertexts,
            level=spec.level,
            scale=spec.scale,
            seeded=True,
        )
        return self._runtime.load_inputs(inputs)

    def new_control(self) -> RunControl:
        return self._runtime.new_control()

    def evaluate(self, inputs: Handle, keys: Handle, control: RunControl) -> Handle:
        return self._runtime.run(inputs, keys, control)

    def close_outputs(self, outputs: Handle, key_id: str, inputs: bytes) -> bytes:
        """The frame of outputs, bound to what was evaluated: this manifest, these keys and these inputs."""
        binding = evaluation_binding(self._binding, key_id, inputs)
        return encode_ciphertexts(self._parameters, binding, self._runtime.save_outputs(outputs))


class Evaluator:
    """Models by the digest of their manifest, and clients' loaded keys by key id.

    Models of equal parameters have one ring, so that keys which are loaded for one serve all that take the same.
    Which keys to load and to forget is the parent's to say: it alone knows who is still registered.

    Attributes:
        load_seconds: what each version took to load, in the order of the set-up.
        watcher: of evaluations that have a number; None where nobody looks.
    """

    def __init__(self, setup: Setup) -> None:
        self._models: dict[str, _Model] = {}
        self.load_seconds: list[float] = []
        rings: dict[Parameters, RingHandle] = {}
        for bundle in setup.bundles:
            manifest, started = bundle.manifest, perf_counter()
            digest, parameters = digest_of(manifest), bundle.typed.parameters
            if parameters not in rings:
                rings[parameters] = open_ring(parameters, setup.backend)
            self._models[digest] = _Model(bundle, setup.backend, setup.options_of(digest), rings[parameters])
            self.load_seconds.append(perf_counter() - started)
        self._keys: dict[str, Handle] = {}
        self.watcher: Watcher | None = None

    def executed(self, manifest: str) -> Counts:
        """Counts of the last evaluation of the model with that manifest, by its digest."""
        return self._models[manifest].executed

    def forget(self, key_ids: Sequence[str]) -> None:
        """Let go of loaded keys."""
        for key_id in key_ids:
            del self._keys[key_id]

    def run(self, task: EvaluationTask) -> Evaluated | TaskFailure:
        """Evaluate one request; after a failure, keys that came with it are not loaded."""
        self.forget(task.forget)
        try:
            return self._evaluate(task)
        except Exception as error:
            if task.keys is not None:
                self._keys.pop(task.key_id, None)
            return TaskFailure(error if isinstance(error, HeinferError) else None, format_exc())

    def _evaluate(self, task: EvaluationTask) -> Evaluated:
        model = self._models[task.manifest]
        started = perf_counter()
        if task.keys is not None:
            self._keys[task.key_id] = model.open_keys(task.keys.mapped())
            task.keys.close()
        keys = self._keys[task.key_id]
        keys_seconds = perf_counter() - started
        inputs = model.open_inputs(task.inputs)
        started = perf_counter()
        outputs = self._watched(model, inputs, keys, task.number)
        evaluation_seconds = perf_counter() - started
        return Evaluated(model.close_outputs(outputs, task.key_id, task.inputs), keys_seconds, evaluation_seconds)

    def _watched(self, model: _Model, inputs: Handle, keys: Handle, number: int) -> Handle:
        control = model.new_control()
        if self.watcher is None or not number:
            return model.evaluate(inputs, keys, control)
        with self.watcher.watched(number, control):
            return model.evaluate(inputs, keys, control)

"""What a worker process does: the models' circuits on a backend, and clients' loaded keys.

On SEAL, a computation holds the interpreter lock and a fault ends the process: no other process loads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from time import perf_counter
from traceback import format_exc

from heinfer.backends import Handle, NativeOptions, RingHandle, Runtime, open_ring, open_runtime
from heinfer.ckks.parameters import Parameters
from heinfer.errors import HeinferError
from heinfer.formats.bindings import evaluation_binding
from heinfer.formats.frames import decode_keys, encode_ciphertexts
from heinfer_server.evaluation.progress import Watcher
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, Setup, TaskFailure
from heinfer_server.models import ServedModel


class Evaluator:
    """Models by the digest of their manifest, and clients' loaded keys by key id.

    Models of equal parameters have one ring, so that keys which are loaded for one serve all that take the same.
    Which keys to load and to forget is the parent's to say: it alone knows who is still registered.

    Attributes:
        runtimes: the models' circuits, by digest.
        keys: those that are loaded, by id.
        load_seconds: what each version took to load, in the order of the set-up.
        watcher: of evaluations that have a number; None where nobody looks.
    """

    def __init__(self, setup: Setup) -> None:
        self._models: dict[str, ServedModel] = {}
        self.runtimes: dict[str, Runtime] = {}
        self.keys: dict[str, Handle] = {}
        self.load_seconds: list[float] = []
        self.watcher: Watcher | None = None
        rings: dict[Parameters, RingHandle] = {}
        for model in setup.models:
            started = perf_counter()
            if model.parameters not in rings:
                rings[model.parameters] = open_ring(model.parameters, setup.backend)
            self._models[model.digest] = model.without_weights()
            self.runtimes[model.digest] = open_runtime(
                model.bundle.typed,
                backend=setup.backend,
                options=setup.options.get(model.digest, NativeOptions()),
                ring=rings[model.parameters],
            )
            self.load_seconds.append(perf_counter() - started)

    def forget(self, key_ids: Sequence[str]) -> None:
        """Let go of loaded keys."""
        for key_id in key_ids:
            del self.keys[key_id]

    def run(self, task: EvaluationTask) -> Evaluated | TaskFailure:
        """Evaluate one request; after a failure, keys that came with it are not loaded."""
        try:
            return self._evaluate(task)
        except Exception as error:
            if task.keys is not None:
                self.keys.pop(task.key_id, None)
            return TaskFailure(error if isinstance(error, HeinferError) else None, format_exc())

    def _evaluate(self, task: EvaluationTask) -> Evaluated:
        model, runtime = self._models[task.manifest], self.runtimes[task.manifest]
        started = perf_counter()
        if task.keys is not None:
            wanted = model.keys
            self.keys[task.key_id] = runtime.load_keys(
                decode_keys(task.keys.mapped(), wanted.parameters, wanted.binding, wanted.levels)
            )
            task.keys.close()
        keys = self.keys[task.key_id]
        keys_seconds = perf_counter() - started
        inputs = runtime.load_inputs(model.read_inputs(task.inputs))
        started = perf_counter()
        control, number = runtime.new_control(), task.number
        watcher = self.watcher if number else None
        with nullcontext() if watcher is None else watcher.watched(number, control, runtime.steps):
            outputs = runtime.run(inputs, keys, control)
        evaluation_seconds = perf_counter() - started
        # Bound to what was evaluated: this manifest, these keys and these inputs.
        binding = evaluation_binding(bytes.fromhex(task.manifest), task.key_id, task.inputs)
        frames = encode_ciphertexts(model.parameters, binding, runtime.save_outputs(outputs))
        return Evaluated(frames, keys_seconds, evaluation_seconds)

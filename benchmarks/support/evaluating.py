"""A worker's half of the work, with no more imported than a worker of the service has."""

from __future__ import annotations

from heinfer.backends import NativeOptions
from heinfer.backends.native import NativeProgram
from heinfer.formats.bundle import Bundle
from heinfer_server.evaluation.evaluator import Evaluator
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, Setup
from heinfer_server.keys.frame_file import FrameFile
from heinfer_server.models import ServedModel

KEY_ID = "benchmark"


class Worker:
    """An evaluator of one model, for one set of keys."""

    def __init__(self, model: Bundle, backend: str, options: NativeOptions) -> None:
        served = ServedModel.of(model)
        self._manifest = served.digest
        self._evaluator = Evaluator(Setup((served,), backend, {served.digest: options}))

    def evaluate(self, inputs: bytes, keys: bytes | None = None) -> Evaluated:
        """The answer to a frame of inputs, with the keys when they are not loaded yet; what went wrong is raised."""
        unloaded = FrameFile.of(keys) if keys else None
        result = self._evaluator.run(EvaluationTask(self._manifest, KEY_ID, unloaded, inputs))
        if not isinstance(result, Evaluated):
            raise result.error or RuntimeError(result.trace)
        return result

    @property
    def rotations_hoisted(self) -> int:
        """Of the last evaluation, those that shared digits."""
        return self._evaluator.runtimes[self._manifest].executed.rotations_hoisted

    @property
    def constant_bytes(self) -> int:
        """Memory of all that the native backend keeps of the constants."""
        runtime = self._evaluator.runtimes[self._manifest]
        assert isinstance(runtime, NativeProgram)
        return runtime.constant_bytes

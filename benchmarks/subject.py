"""What is measured: a compiled model with a client's and a worker's half of the work, both in this process."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heinfer.backends import NativeOptions
from heinfer.ckks.secret import SecretSide
from heinfer.formats.bindings import evaluation_binding
from heinfer.formats.bundle import Bundle
from heinfer_client.codec import Codec, Decrypted
from heinfer_server.evaluation.evaluator import Evaluator
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, Setup
from heinfer_server.keys.frame_file import FrameFile
from heinfer_server.models import ServedModel

_KEY_ID = "benchmark"


class Subject:
    """A model, a new secret key, and a program with the keys loaded.

    Attributes:
        codec: the client's half.
        secret: the secret key.
        keys: the frame of the evaluation keys.
        backend: what evaluates.
        threads: that an evaluation is spread over.
    """

    def __init__(self, bundle: Bundle, backend: str = "tenseal", threads: int = 1) -> None:
        self.codec = Codec(bundle.manifest)
        self.secret = SecretSide.generate(self.codec.parameters)
        self.keys = self.codec.evaluation_keys(self.secret, lambda _done: None)
        self.backend, self.threads = backend, threads
        model = ServedModel.of(bundle)
        self._manifest = model.digest
        self._evaluator = Evaluator(Setup((model,), backend, {model.digest: NativeOptions(threads)}))
        self._unloaded: FrameFile | None = FrameFile.of(self.keys)

    def classify(self, image: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
        """Decrypted scores (classes,) of an image, and the seconds of the evaluation."""
        answer, seconds = self.answer(image)
        return answer.scores[0], seconds

    def answer(self, image: NDArray[Any]) -> tuple[Decrypted, float]:
        """The decrypted answer for an image, and the seconds of the evaluation.

        The seconds run from parsed ciphertexts and loaded keys to result ciphertexts, constants already encoded.
        """
        inputs = self.codec.encrypt(self.secret, [self.codec.read_image(image)])
        result = self._evaluator.run(EvaluationTask(self._manifest, _KEY_ID, self._unloaded, inputs))
        if not isinstance(result, Evaluated):
            raise result.error or RuntimeError(result.trace)
        self._unloaded = None
        binding = evaluation_binding(self.codec.binding, _KEY_ID, inputs)
        return self.codec.decrypt(self.secret, result.frames, 1, binding), result.evaluation_seconds

    @property
    def rotations_hoisted(self) -> int:
        """Of the last evaluation, those that shared digits."""
        return self._evaluator.runtimes[self._manifest].executed.rotations_hoisted

"""What is measured: a compiled model with a client's and a worker's half of the work, both in this process."""

from __future__ import annotations

from math import inf
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.support.evaluating import KEY_ID, Worker
from benchmarks.support.samples import image_for
from heinfer.backends import NativeOptions
from heinfer.ckks.secret import SecretSide
from heinfer.formats.bindings import evaluation_binding
from heinfer.formats.bundle import Bundle
from heinfer_client.codec import Codec, Decrypted
from heinfer_server.models import digest_of


class Sender:
    """A client's half, made beforehand, as other machines would do it.

    Attributes:
        keys: a frame of evaluation keys.
        inputs: a frame of an image under them.
    """

    def __init__(self, model: Bundle) -> None:
        codec = Codec(model.manifest)
        secret = SecretSide.generate(codec.parameters)
        self.keys = codec.evaluation_keys(secret, lambda _done: None)
        self.inputs = codec.encrypt(secret, [codec.read_image(image_for(model.manifest))])
        self._name, self._manifest = model.manifest.name, digest_of(model.manifest)
        self._key_id = ""

    async def register(self, http: httpx.AsyncClient) -> None:
        """Register the keys at a service."""
        query = {"manifest": self._manifest}
        answer = await http.post(f"/models/{self._name}/keys", params=query, content=self.keys)
        answer.raise_for_status()
        self._key_id = answer.json()["keys"]

    async def ask(self, http: httpx.AsyncClient) -> httpx.Response:
        """Have the image evaluated there."""
        params = {"model": self._name, "manifest": self._manifest, "keys": self._key_id}
        answer = await http.post("/infer", params=params, content=self.inputs)
        return answer.raise_for_status()


class Subject:
    """A model, a new secret key, and a program with the keys loaded.

    Attributes:
        codec: the client's half.
        worker: the other one.
        backend: what evaluates.
        threads: that an evaluation is spread over.
    """

    def __init__(
        self, bundle: Bundle, backend: str = "tenseal", threads: int = 1, most_constant_bytes: float = inf
    ) -> None:
        self.codec = Codec(bundle.manifest)
        self._secret = SecretSide.generate(self.codec.parameters)
        self._unloaded: bytes | None = self.codec.evaluation_keys(self._secret, lambda _done: None)
        self.backend, self.threads = backend, threads
        self.worker = Worker(bundle, backend, NativeOptions(threads, most_constant_bytes))

    def classify(self, image: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
        """Decrypted scores (classes,) of an image, and the seconds of the evaluation."""
        answer, seconds = self.answer(image)
        return answer.scores[0], seconds

    def answer(self, image: NDArray[Any]) -> tuple[Decrypted, float]:
        """The decrypted answer for an image, and the seconds of the evaluation.

        The seconds run from parsed ciphertexts and loaded keys to result ciphertexts, constants already encoded.
        """
        inputs = self.codec.encrypt(self._secret, [self.codec.read_image(image)])
        result = self.worker.evaluate(inputs, self._unloaded)
        self._unloaded = None
        binding = evaluation_binding(self.codec.binding, KEY_ID, inputs)
        return self.codec.decrypt(self._secret, result.frames, 1, binding), result.evaluation_seconds

"""The holder of a secret key, for tests that speak HTTP themselves."""

from __future__ import annotations

import numpy as np

from heinfer.ckks.secret import SecretSide
from heinfer.formats.bundle import Bundle
from heinfer_client.codec import Codec


class Owner:
    """Makes the bodies of good requests for a model, and reads the answers."""

    def __init__(self, model: Bundle) -> None:
        self.codec = Codec(model.manifest)
        self.secret = SecretSide.generate(self.codec.parameters)
        self.keys = self.codec.evaluation_keys(self.secret, lambda _done: None)

    def inputs(self, image: np.ndarray) -> bytes:
        """An encrypted image."""
        (values,) = self.codec.read_images([image])
        return self.codec.encrypt(self.secret, values)

    def scores(self, body: bytes) -> np.ndarray:
        """Decrypted scores."""
        return self.codec.decrypt(self.secret, body)

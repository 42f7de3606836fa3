"""The holder of a secret key, for tests that speak HTTP themselves."""

from __future__ import annotations

import numpy as np

from heinfer.ckks.secret import SecretSide
from heinfer.formats.bundle import Bundle
from heinfer.formats.frame_fields import HEADER
from heinfer_client.codec import Codec


def binding_of(frame: bytes) -> bytes:
    """What a frame is bound to."""
    (field,) = (field for field in HEADER if field.name == "binding")
    return frame[field.offset : field.end]


class Owner:
    """Makes the bodies of good requests for a model, and reads the answers."""

    def __init__(self, model: Bundle) -> None:
        self.codec = Codec(model.manifest)
        self.secret = SecretSide.generate(self.codec.parameters)
        self.keys = self.codec.evaluation_keys(self.secret, lambda _done: None)

    def inputs(self, image: np.ndarray) -> bytes:
        """An encrypted image."""
        return self.codec.encrypt(self.secret, [self.codec.read_image(image)])

    def scores(self, body: bytes) -> np.ndarray:
        """Decrypted scores, of whichever evaluation they are."""
        (scores,) = self.codec.decrypt(self.secret, body, 1, binding_of(body)).scores
        return scores

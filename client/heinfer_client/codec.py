"""One model's manifest put to work: images to encrypted frames, encrypted frames to scores, keys to frames."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heinfer.ckks.secret import SecretSide
from heinfer.errors import FormatError, ServiceError
from heinfer.formats.frames import (
    ciphertexts_length,
    decode_ciphertexts,
    encode_ciphertexts,
    encode_keys,
    keys_length,
)
from heinfer.formats.manifest import Manifest
from heinfer.formats.seal_reader import read_ciphertext, read_key
from heinfer.formats.seal_writer import write_ciphertext
from heinfer_client.images import Image, read_image
from heinfer_client.progress import Advance


class Codec:
    """What a trusted manifest says, as functions.

    Attributes:
        manifest: as checked.
        parameters: its CKKS parameters.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.parameters = manifest.to_parameters()
        self._input_layout = manifest.input.layout.to_layout()
        self._output_layout = manifest.output.layout.to_layout()

    @cached_property
    def key_steps(self) -> tuple[int, ...]:
        """Steps of all evaluation keys, 0 for the relinearization key."""
        keys = self.manifest.keys
        return ((0,) if keys.relinearization else ()) + keys.steps

    @cached_property
    def key_bytes(self) -> int:
        """Bytes that registering the evaluation keys sends."""
        keys = self.manifest.keys
        return keys_length(self.parameters, steps=keys.steps, relinearization=keys.relinearization)

    @cached_property
    def upload_bytes(self) -> int:
        """Bytes that one image sends."""
        plan = self.manifest.input
        return ciphertexts_length(self.parameters, count=plan.layout.ciphertexts, level=plan.level, seeded=True)

    @cached_property
    def download_bytes(self) -> int:
        """Bytes that the scores of one image have."""
        plan = self.manifest.output
        return ciphertexts_length(self.parameters, count=plan.layout.ciphertexts, level=plan.level, seeded=False)

    def read_images(self, images: Image | Sequence[Image]) -> list[NDArray[np.float64]]:
        """The network's inputs from one image or several; ImageError when one does not fit the model."""
        several = images if isinstance(images, Sequence) else [images]
        return [read_image(image, self.manifest.input) for image in several]

    def evaluation_keys(self, secret: SecretSide, advance: Advance) -> bytes:
        """Make all evaluation keys as one frame; calls advance(1) after each key."""
        frames = []
        for step in self.key_steps:
            data = secret.galois_key(step) if step else secret.relinearization_key()
            frames.append(read_key(data, self.parameters, step))
            advance(1)
        return encode_keys(self.parameters, frames)

    def encrypt(self, secret: SecretSide, image: NDArray[np.float64]) -> bytes:
        """Pack a network's input and encrypt it: a frame of seeded ciphertexts."""
        plan = self.manifest.input
        packed = self._input_layout.pack(image)
        frames = [read_ciphertext(secret.encrypt(slots, plan.level, plan.scale), self.parameters) for slots in packed]
        return encode_ciphertexts(self.parameters, frames)

    def decrypt(self, secret: SecretSide, body: bytes) -> NDArray[np.float64]:
        """Scores (classes,) from a server's frame; ServiceError when it is not the frame that the manifest promises."""
        plan = self.manifest.output
        try:
            frames = decode_ciphertexts(
                body, self.parameters, count=plan.layout.ciphertexts, level=plan.level, scale=plan.scale, seeded=False
            )
        except FormatError as error:
            raise ServiceError(f"the service's answer is no result of this model: {error}", status=200) from error
        slots = np.stack([secret.decrypt(write_ciphertext(frame, self.parameters)) for frame in frames])
        return self._output_layout.unpack(slots).reshape(-1)

    def label(self, scores: NDArray[np.float64]) -> str:
        """Label of the largest score; its number when the model names none."""
        best, labels = int(scores.argmax()), self.manifest.output.labels
        return labels[best] if labels else str(best)

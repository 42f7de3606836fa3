"""One model's manifest put to work: images to encrypted frames, encrypted frames to scores, keys to frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heinfer.ckks.secret import SecretSide
from heinfer.errors import FormatError, FrameBindingError, ImageError, ServiceError, WrongAnswerError
from heinfer.formats.bindings import manifest_binding
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
from heinfer_client.inputs import Input, read_input
from heinfer_client.marks import Marks, read_marks
from heinfer_client.progress import Advance

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Decrypted:
    """A decrypted answer: scores (count, *shape), of several outputs (count, n), and the marks of each output."""

    scores: Array = field(repr=False)
    marks: Mapping[str, Marks]


class Codec:
    """What a trusted manifest says, as functions.

    Args:
        manifest: as checked.
        served: its bytes as the service gave them; by default those that heinfer writes.

    Attributes:
        manifest: the manifest.
        binding: what its inputs are bound to.
        parameters: its CKKS parameters.
    """

    def __init__(self, manifest: Manifest, served: bytes | None = None) -> None:
        self.manifest = manifest
        self.binding = manifest_binding(manifest.to_bytes() if served is None else served)
        self.parameters = manifest.to_parameters()
        self._input_layout = manifest.input_layout()
        self._output_layout = manifest.output_layout()
        self._capacity = manifest.decoded_capacity

    @property
    def digest(self) -> str:
        """Hexadecimal, of the manifest as it was served: requests name it so."""
        return self.binding.hex()

    @cached_property
    def key_set(self) -> str:
        """Hexadecimal digest of what its evaluation keys depend on."""
        return self.manifest.keys_binding.hex()

    @cached_property
    def key_bytes(self) -> int:
        """Bytes that registering the evaluation keys sends."""
        return keys_length(self.parameters, self.manifest.keys.levels)

    @cached_property
    def upload_bytes(self) -> int:
        """Bytes that one request sends: those of an image, or of a batch of them."""
        spec = self.manifest.input
        return ciphertexts_length(self.parameters, count=spec.layout.ciphertexts, level=spec.level, seeded=True)

    @cached_property
    def download_bytes(self) -> int:
        """Bytes that the answer to one request has."""
        spec = self.manifest.output
        return ciphertexts_length(self.parameters, count=spec.layout.ciphertexts, level=spec.level, seeded=False)

    def read_image(self, image: Input, maximum: int | None = None) -> Array:
        """The network's input from an image, values or a mapping; ImageError when it does not fit the model."""
        return read_input(image, self.manifest, maximum)

    def read_images(self, images: Iterable[Input], maximum: int | None = None) -> list[Array]:
        """The network's inputs from images; ImageError names the first that does not fit the model."""
        several = list(images)
        inputs = []
        for number, image in enumerate(several, 1):
            try:
                inputs.append(self.read_image(image, maximum))
            except ImageError as error:
                raise ImageError(error.cause, error.way_out, number, len(several)) from error
        return inputs

    def in_batches(self, inputs: Sequence[Array]) -> Iterator[Sequence[Array]]:
        """Inputs as requests take them, in order; only the last may be less than a batch."""
        batch = self.manifest.batch
        return (inputs[start : start + batch] for start in range(0, len(inputs), batch))

    def pack(self, inputs: Sequence[Array]) -> Array:
        """Inputs in slots, batch after batch: (batches, ciphertexts, slots).

        Places that the last batch has no image for get images again: the ranges that the circuit was compiled for are
        those of images, and a value beyond its range in any slot would spoil all of them.
        """
        batch, layout = self.manifest.batch, self._input_layout
        filled = np.resize(np.stack(inputs), (-(-len(inputs) // batch) * batch, *self.manifest.input_shape))
        return layout.pack(filled.reshape(-1, *layout.shape))

    def unpack(self, slots: Array, count: int) -> Array:
        """Scores (count, *output_shape) from the slots (batches, ciphertexts, slots) that so many inputs gave."""
        decoded = self._output_layout.unpack(slots).reshape(-1, *self.manifest.output_shape)
        return self.manifest.to_scores(decoded)[:count]

    def evaluation_keys(self, secret: SecretSide, advance: Advance) -> bytes:
        """Make all evaluation keys as one frame; calls advance(1) after each key."""
        frames = []
        for step, level in self.manifest.keys.levels.items():
            data = secret.galois_key(step) if step else secret.relinearization_key()
            frames.append(read_key(data, self.parameters, step).trimmed(level))
            advance(1)
        return encode_keys(self.parameters, self.manifest.keys_binding, frames)

    def encrypt(self, secret: SecretSide, inputs: Sequence[Array]) -> bytes:
        """Pack a network's inputs, no more than a batch, and encrypt them: a frame of seeded ciphertexts."""
        spec = self.manifest.input
        (packed,) = self.pack(inputs)
        frames = [read_ciphertext(secret.encrypt(slots, spec.level, spec.scale), self.parameters) for slots in packed]
        return encode_ciphertexts(self.parameters, self.binding, frames)

    def decrypt(self, secret: SecretSide, body: bytes, count: int, binding: bytes) -> Decrypted:
        """Scores of so many inputs, and what marks their answer, from a server's frame.

        Args:
            binding: of the evaluation that was asked for (heinfer.formats.bindings).

        Raises:
            WrongAnswerError: when it is of another evaluation.
            ServiceError: when it is not the frame that the manifest promises.
        """
        spec = self.manifest.output
        try:
            frames = decode_ciphertexts(
                body,
                self.parameters,
                binding,
                count=spec.layout.ciphertexts,
                level=spec.level,
                scale=spec.scale,
                seeded=False,
            )
        except FrameBindingError as error:
            raise WrongAnswerError(
                "the service's answer is of another request, other keys or another version of the model: nothing of it "
                "is used; ask again, and tell the service's operator",
                status=200,
            ) from error
        except FormatError as error:
            raise ServiceError(f"the service's answer is no result of this model: {error}", status=200) from error
        slots = np.stack([secret.decrypt(write_ciphertext(frame, self.parameters)) for frame in frames])
        return self.answer(slots, count)

    def answer(self, slots: NDArray[np.complex128], count: int) -> Decrypted:
        """Scores of so many inputs, and what marks their answer, from decrypted slots (ciphertexts, slots)."""
        marks = read_marks(slots, self._output_layout, self._capacity)
        each = {part.name: marks.of_scores(part.exponent) for part in self.manifest.outputs}
        return Decrypted(self.unpack(slots.real[None], count), each)

    def outputs(self, scores: Array) -> dict[str, Array]:
        """The scores of one image by the names of the outputs, each in its shape."""
        whole = scores.reshape(-1)
        return {part.name: part.of(whole) for part in self.manifest.output_parts}

    def labels(self, scores: Array) -> dict[str, str]:
        """Of each output of one image that is a classification, the label of its largest score, or its number."""
        outputs = self.outputs(scores)
        return {
            part.name: _label(outputs[part.name], part.labels)
            for part in self.manifest.outputs
            if part.kind == "classification"
        }


def _label(scores: Array, labels: tuple[str, ...]) -> str:
    best = int(scores.argmax())
    return labels[best] if labels else str(best)

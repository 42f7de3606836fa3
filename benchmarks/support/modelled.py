"""What a client decrypts, without keys: the circuit in cleartext, its predicted noise, and coefficients that wrap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.support.wrapping import wrapped
from heinfer.backends.cleartext import simulate
from heinfer.formats.bundle import Bundle
from heinfer_cli.comparison import Scores
from heinfer_client.codec import Codec, Decrypted


class Modelled:
    """A compiled model for one image a request, with noise from a seeded generator."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._codec = Codec(bundle.manifest)
        self._rng = np.random.default_rng(0)

    def answers(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[Scores, Decrypted]]:
        """Exact scores (classes,) and the answer of each image; noise is that of their mean power."""
        bundle, codec = self._bundle, self._codec
        limit = bundle.manifest.decoded_capacity
        simulation = simulate(bundle.typed, bundle.bounds, codec.pack(codec.read_images(images)))
        for slots in simulation.outputs:
            noise = self._rng.normal(size=(2, *slots.shape)) * simulation.deviation
            decrypted = wrapped(slots + noise[0] + 1j * noise[1], limit)
            yield codec.unpack(slots[None], 1)[0], codec.answer(decrypted, 1)

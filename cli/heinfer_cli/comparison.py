"""Encrypted scores beside those of the cleartext model."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heinfer.circuit.interpret import run
from heinfer.formats.bundle import Bundle

Scores = NDArray[np.float64]


def cleartext_scores(bundle: Bundle, images: Sequence[NDArray[Any]]) -> Scores:
    """What a bundle's circuit computes in cleartext of images as a client gets them; shape (images, classes)."""
    from heinfer_client.codec import Codec

    codec = Codec(bundle.manifest)
    return codec.unpack(run(bundle.circuit, codec.pack(codec.read_images(images))), len(images))


def precision_bits(decrypted: Scores, cleartext: Scores) -> float:
    """Bits of one image's scores (classes,) that are right: -log2(max |decrypted - cleartext| / max |cleartext|)."""
    error = float(np.abs(decrypted - cleartext).max())
    return -log2(error / float(np.abs(cleartext).max())) if error else inf

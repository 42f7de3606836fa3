"""What a client learns of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Prediction:
    """The decrypted answer for one image.

    Scores let a server that sees them learn something of the secret key: share the label, not the scores.

    Seconds and bytes are those of the whole request, which in a batch the image shares with others.

    Attributes:
        label: the manifest's label of the largest score, or its number when the model has no labels.
        scores: (classes,) float64, as the network gives them.
        model_version: of the model that it is by, as its developer names it.
        manifest: hexadecimal SHA-256 of that version's manifest.
        client_seconds: packing, encryption and decryption.
        server_seconds: evaluation, as the server says; NaN when it does not say.
        upload_bytes: body of the request.
        download_bytes: body of the answer.
        images: how many went in the request, this one included.
    """

    label: str
    scores: NDArray[np.float64]
    model_version: str
    manifest: str
    client_seconds: float
    server_seconds: float
    upload_bytes: int
    download_bytes: int
    images: int

"""What a client learns of one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.errors import MissingScoresError
from heinfer_client.marks import Marks

_HIGH = 0.99
_MEDIUM = 0.9
"""Probabilities of the label, by the softmax of the scores."""

_DEVIATIONS = 12.0
_PRECISION = 2.0**-8
"""The two largest scores are no closer than so many deviations of the noise, and than this part of the largest one:
constants are encoded to some bits, which is an error that no slot shows."""


class Confidence(StrEnum):
    """How far the largest score is above the others: few fixed classes, which may be shared as the label may.

    Of scores that are logits, the probability of the label by their softmax: HIGH from 0.99 on, MEDIUM from 0.9 on.
    Of other scores it is the same function of them, and no probability.
    NONE: nothing is to be had of the label, because the answer is out of range, or because the two largest scores (of
    a model with one score: that and nothing) are no further apart than noise could put them.
    """

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"


@dataclass(frozen=True, eq=False)
class Prediction:
    """The decrypted answer for one image.

    Scores let a server that sees them learn something of the secret key: share the label, not the scores. They are no
    field: what prints, logs, copies, pickles or compares a prediction does not get them, and a copy has none.

    Seconds and bytes are those of the whole request, which in a batch the image shares with others.

    Attributes:
        label: the manifest's label of the largest score, or its number when the model has no labels.
        confidence: class of the label's confidence; coarse enough to be shared.
        in_range: False when the answer went beyond what the model's parameters can represent, or one of its batch did:
            the label is then worth nothing.
        model_version: of the model that it is by, as its developer names it.
        manifest: hexadecimal SHA-256 of that version's manifest.
        client_seconds: packing, encryption and decryption.
        server_seconds: evaluation, as the server says; NaN when it does not say.
        upload_bytes: body of the request.
        download_bytes: body of the answer.
        images: how many went in the request, this one included.
    """

    label: str
    confidence: Confidence
    in_range: bool
    model_version: str
    manifest: str = field(repr=False)
    client_seconds: float
    server_seconds: float
    upload_bytes: int
    download_bytes: int
    images: int

    __repr__ = brief_repr

    @classmethod
    def of(cls, scores: NDArray[np.float64], marks: Marks, **fields: Any) -> Self:
        """From the scores (classes,) of an image, the marks of the answer that it came in, and all other fields."""
        prediction = cls(confidence=confidence_of(scores, marks), in_range=marks.in_range, **fields)
        _SCORES[prediction] = scores
        return prediction

    @property
    def scores(self) -> NDArray[np.float64]:
        """(classes,) float64, as the network gives them; MissingScoresError when this is a copy."""
        try:
            return _SCORES[self]
        except KeyError:
            raise MissingScoresError(
                "a copy of a prediction has no scores, which should not leave the process: "
                "take them of the prediction that the client returned"
            ) from None


_SCORES: WeakKeyDictionary[Prediction, NDArray[np.float64]] = WeakKeyDictionary()


def confidence_of(scores: NDArray[np.float64], marks: Marks) -> Confidence:
    """Class of the largest of an image's scores (classes,)."""
    if not marks.in_range or scores.size < 2:
        return Confidence.NONE
    second, first = np.sort(scores)[-2:]
    if first - second <= max(_DEVIATIONS * marks.noise, _PRECISION * float(np.abs(scores).max())):
        return Confidence.NONE
    probability = 1 / float(np.exp(scores - first).sum())
    return Confidence.HIGH if probability >= _HIGH else Confidence.MEDIUM if probability >= _MEDIUM else Confidence.LOW

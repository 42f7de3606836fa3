"""What a client learns of one image, or of whatever else a model takes."""

from __future__ import annotations

from collections.abc import Mapping
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
    a model with one score: that and nothing) are no further apart than noise could put them; or there is no label.
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
        label: the manifest's label of the largest score, or its number when the model has no labels. None of a model
            that gives values, and where several outputs classify: `labels` has them by name.
        confidence: class of the label's confidence; coarse enough to be shared.
        labels: of each output that is a classification, by its name.
        confidences: of each of these labels.
        in_range: False when the answer went beyond what the model's parameters can represent, or one of its batch did:
            the labels, and all outputs, are then worth nothing.
        model_version: of the model that it is by, as its developer names it.
        manifest: hexadecimal SHA-256 of that version's manifest.
        client_seconds: packing, encryption and decryption.
        server_seconds: evaluation, as the server says; NaN when it does not say.
        upload_bytes: body of the request.
        download_bytes: body of the answer.
        images: how many went in the request, this one included.
    """

    label: str | None
    confidence: Confidence
    labels: Mapping[str, str] = field(repr=False)
    confidences: Mapping[str, Confidence] = field(repr=False)
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
    def of(
        cls,
        outputs: Mapping[str, NDArray[np.float64]],
        labels: Mapping[str, str],
        marks: Mapping[str, Marks],
        **fields: Any,
    ) -> Self:
        """From an image's outputs by name, the labels of those that classify, and the marks of every output."""
        confidences = {name: confidence_of(outputs[name].reshape(-1), marks[name]) for name in labels}
        (only,) = labels if len(labels) == 1 else (None,)
        prediction = cls(
            label=None if only is None else labels[only],
            confidence=Confidence.NONE if only is None else confidences[only],
            labels=dict(labels),
            confidences=confidences,
            in_range=all(own.in_range for own in marks.values()),
            **fields,
        )
        _OUTPUTS[prediction] = dict(outputs)
        return prediction

    @property
    def outputs(self) -> dict[str, NDArray[np.float64]]:
        """float64 of every output by its name, in its shape; MissingScoresError when this is a copy."""
        try:
            return dict(_OUTPUTS[self])
        except KeyError:
            raise MissingScoresError(
                "a copy of a prediction has no scores, which should not leave the process: "
                "take them of the prediction that the client returned"
            ) from None

    @property
    def scores(self) -> NDArray[np.float64]:
        """float64 of the only output, in its shape, as the network gives them.

        Raises:
            MissingScoresError: when this is a copy, or the model has several outputs.
        """
        outputs = self.outputs
        if len(outputs) > 1:
            raise MissingScoresError(
                f"the model has several outputs, {', '.join(map(repr, outputs))}: "
                "take them by name, of prediction.outputs"
            )
        (scores,) = outputs.values()
        return scores


_OUTPUTS: WeakKeyDictionary[Prediction, dict[str, NDArray[np.float64]]] = WeakKeyDictionary()


def confidence_of(scores: NDArray[np.float64], marks: Marks) -> Confidence:
    """Class of the largest of an image's scores (classes,)."""
    if not marks.in_range or scores.size < 2:
        return Confidence.NONE
    second, first = np.sort(scores)[-2:]
    if first - second <= max(_DEVIATIONS * marks.noise, _PRECISION * float(np.abs(scores).max())):
        return Confidence.NONE
    probability = 1 / float(np.exp(scores - first).sum())
    return Confidence.HIGH if probability >= _HIGH else Confidence.MEDIUM if probability >= _MEDIUM else Confidence.LOW

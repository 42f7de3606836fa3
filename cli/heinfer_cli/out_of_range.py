"""Answers beyond what a model's parameters can represent, in words on a terminal."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from heinfer.errors import OutOfRangeWarning

if TYPE_CHECKING:
    from heinfer_client import Prediction

OUT_OF_RANGE = "out of range"
OUT_OF_RANGE_MEANS = (
    "out of range: the answer is beyond what the model's parameters can represent, and the label worth nothing"
)


@contextmanager
def in_words() -> Iterator[None]:
    """Have the client keep its warning to itself: what is printed says it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfRangeWarning)
        yield


def confidence_in_words(prediction: Prediction, output: str) -> str:
    """Class of the confidence in the label of an output, or that it is out of range."""
    return str(prediction.confidences[output]) if prediction.in_range else OUT_OF_RANGE

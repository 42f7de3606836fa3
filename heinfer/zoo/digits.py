"""The twenty test digits that ship with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr

DIGITS_FILE = Path(__file__).parent / "bundles" / "mnist_digits.npz"


@dataclass(frozen=True, eq=False)
class DemoDigits:
    """Images uint8 (20, 28, 28), labels int64 (20,) and their indices int64 (20,) in MNIST's test set."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]

    __repr__ = brief_repr

    def save(self, path: Path) -> None:
        """Write an npz file that ``load`` reads."""
        np.savez_compressed(path, images=self.images, labels=self.labels, indices=self.indices)

    @classmethod
    def load(cls, path: Path) -> DemoDigits:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["images"], arrays["labels"], arrays["indices"])


def digits() -> DemoDigits:
    """The first two images of each class 0..9 in the order of MNIST's test set, needing no data set."""
    return DemoDigits.load(DIGITS_FILE)

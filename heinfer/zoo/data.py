"""The data sets: what a set is, and MNIST; from a folder of the user's or a public mirror, always checked."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heinfer.zoo.archives import DATA_DIR_SETTING, Content, checked, fetched, folder, found
from heinfer.zoo.digits import DemoDigits

__all__ = ["CIFAR10", "DATA_DIR_SETTING", "MNIST", "DataSet", "Images", "Split", "mnist", "mnist_test", "normalise"]

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"

HELD_OUT = 5_000
"""The last training images are held out. MNIST's file goes writer by writer, and the test set is by other writers:
images held out here and there would share their writers with the rest and promise more than the test set keeps."""


@dataclass(frozen=True)
class DataSet:
    """A data set: its name, the shape (channels, height, width) of its images, and a label for each class.

    ``mean`` and ``deviation`` are those of a pixel of the training images over [0, 1], one for each channel: what
    networks see is (x / 255 - mean) / deviation.
    """

    name: str
    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def normalise(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn images (n, ...) into what networks take: (n, *shape), about zero mean and unit variance."""
        mean, deviation = (np.array(x, np.float32)[:, None, None] for x in (self.mean, self.deviation))
        pixels = images.reshape(len(images), len(self.mean), *images.shape[-2:])
        return ((pixels / np.float32(255) - mean) / deviation).astype(np.float32)


MNIST = DataSet("mnist", (1, 28, 28), tuple("0123456789"), (0.1307,), (0.3081,))
CIFAR10 = DataSet(
    "cifar-10",
    (3, 32, 32),
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (0.4914, 0.4822, 0.4465),
    (0.2470, 0.2435, 0.2616),
)


@dataclass(frozen=True, eq=False)
class Images:
    """Images uint8, (n, 28, 28) of MNIST (0 is background) or (n, 3, 32, 32) of CIFAR-10; labels int64 (n,), 0..9."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: slice) -> Images:
        return Images(self.images[which], self.labels[which])


@dataclass(frozen=True, eq=False)
class Split:
    """Training images in two parts. All choices are made on ``held_out``."""

    train: Images
    held_out: Images

    @property
    def whole(self) -> Images:
        """Both parts, in the data set's order: what is trained on once the choices are made."""
        return Images(
            np.concatenate((self.train.images, self.held_out.images)),
            np.concatenate((self.train.labels, self.held_out.labels)),
        )


def split(images: Images) -> Split:
    """Hold out the last 5,000."""
    return Split(images[:-HELD_OUT], images[-HELD_OUT:])


def normalise(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn images as :class:`Images` has them into what the networks of their data set take: (n, *shape)."""
    return (MNIST if images.ndim == 3 else CIFAR10).normalise(images)


@dataclass(frozen=True)
class _File:
    """An IDX file: name of the archive, what is in it, length of the IDX header."""

    name: str
    content: Content
    header: int


def _file(name: str, size: int, sha256: str, header: int) -> _File:
    return _File(name, Content(name, size, sha256), header)


_TRAIN_IMAGES = _file(
    "train-images-idx3-ubyte.gz", 47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 16
)
_TRAIN_LABELS = _file(
    "train-labels-idx1-ubyte.gz", 60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 8
)
_TEST_IMAGES = _file(
    "t10k-images-idx3-ubyte.gz", 7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 16
)
_TEST_LABELS = _file(
    "t10k-labels-idx1-ubyte.gz", 10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 8
)


def mnist(data_dir: Path | None = None) -> Split:
    """Return MNIST's training images: 55,000 to train on and the last 5,000 for choices.

    Args:
        data_dir: folder with ``mnist/*-ubyte.gz``; None takes the environment variable HEINFER_DATA_DIR, and when
            that is not set, fetches the files once into the user's cache.

    Raises:
        DataError: a file is missing, damaged or cannot be fetched.
    """
    return split(_read(_TRAIN_IMAGES, _TRAIN_LABELS, data_dir))


def mnist_test(data_dir: Path | None = None) -> Images:
    """Return MNIST's 10,000 test images, for a final figure only. Arguments and errors as :func:`mnist`."""
    return _read(_TEST_IMAGES, _TEST_LABELS, data_dir)


def demo_digits(data_dir: Path | None = None) -> DemoDigits:
    """Pick the digits that ship with the package: the first two of each class in test order, sorted by class.

    Regenerate with ``demo_digits().save(heinfer.zoo.digits.DIGITS_FILE)``. Errors as :func:`mnist`.
    """
    test = mnist_test(data_dir)
    indices = np.concatenate([np.flatnonzero(test.labels == digit)[:2] for digit in range(10)])
    return DemoDigits(test.images[indices], test.labels[indices], indices)


def _read(images: _File, labels: _File, data_dir: Path | None) -> Images:
    pixels, classes = (_unpacked(file, folder(data_dir)) for file in (images, labels))
    return Images(
        np.frombuffer(pixels, np.uint8, offset=images.header).reshape(-1, 28, 28),
        np.frombuffer(classes, np.uint8, offset=labels.header).astype(np.int64),
    )


def _unpacked(file: _File, at: Path | None) -> bytes:
    if at:
        path = found(at / "mnist" / file.name, "MNIST's four *-ubyte.gz files")
    else:
        path = fetched(MIRROR, "mnist", file.name, f"mnist/{file.name} and MNIST's other three files")
    return checked(file.content, partial(_gunzip, path), path, at is None, "MNIST's")


def _gunzip(path: Path, most: int) -> bytes:
    with gzip.open(path) as archive:
        return archive.read(most)

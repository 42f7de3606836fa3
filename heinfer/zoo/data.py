"""MNIST, from a folder of the user's or from a public mirror; always checked, numpy only."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heinfer.errors import DataError
from heinfer.zoo.digits import DemoDigits

DATA_DIR_SETTING = "HEINFER_DATA_DIR"
"""Environment variable: folder that holds ``mnist/*-ubyte.gz``."""

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"

HELD_OUT = 5_000
"""The last training images are held out. The file goes writer by writer, and the test set is by other writers: images
held out here and there would share their writers with the rest and promise more than the test set keeps."""

MEAN, DEVIATION = 0.1307, 0.3081
"""Of a pixel of MNIST's training images over [0, 1]: what networks see is (x / 255 - MEAN) / DEVIATION."""


@dataclass(frozen=True)
class _File:
    """An IDX file: name of the archive, size and SHA-256 of the bytes in it, length of the IDX header."""

    name: str
    size: int
    sha256: str
    header: int


# Of the unpacked bytes: archives of the same data differ in how they were compressed.
_TRAIN_IMAGES = _File(
    "train-images-idx3-ubyte.gz", 47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 16
)
_TRAIN_LABELS = _File(
    "train-labels-idx1-ubyte.gz", 60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 8
)
_TEST_IMAGES = _File(
    "t10k-images-idx3-ubyte.gz", 7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 16
)
_TEST_LABELS = _File(
    "t10k-labels-idx1-ubyte.gz", 10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 8
)


@dataclass(frozen=True, eq=False)
class Digits:
    """Images uint8 (n, 28, 28), 0 is background, and their labels int64 (n,) in 0..9."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: slice) -> Digits:
        return Digits(self.images[which], self.labels[which])


@dataclass(frozen=True, eq=False)
class Mnist:
    """The 60,000 training images in two parts. All choices are made on ``held_out``."""

    train: Digits
    held_out: Digits

    @property
    def whole(self) -> Digits:
        """Both parts, in the data set's order: what is trained on once the choices are made."""
        return Digits(
            np.concatenate((self.train.images, self.held_out.images)),
            np.concatenate((self.train.labels, self.held_out.labels)),
        )


def mnist(data_dir: Path | None = None) -> Mnist:
    """Return MNIST's training images: 55,000 to train on and the last 5,000 for choices.

    Args:
        data_dir: folder with ``mnist/*-ubyte.gz``; None takes the environment variable HEINFER_DATA_DIR, and when
            that is not set, fetches the files once into the user's cache.

    Raises:
        DataError: a file is missing, damaged or cannot be fetched.
    """
    digits = _read(_TRAIN_IMAGES, _TRAIN_LABELS, data_dir)
    return Mnist(digits[:-HELD_OUT], digits[-HELD_OUT:])


def mnist_test(data_dir: Path | None = None) -> Digits:
    """Return MNIST's 10,000 test images, for a final figure only. Arguments and errors as :func:`mnist`."""
    return _read(_TEST_IMAGES, _TEST_LABELS, data_dir)


def normalise(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn images (n, 28, 28) into what the MNIST networks take: (n, 1, 28, 28), about zero mean and unit variance."""
    return ((images[:, None] / np.float32(255) - np.float32(MEAN)) / np.float32(DEVIATION)).astype(np.float32)


def demo_digits(data_dir: Path | None = None) -> DemoDigits:
    """Pick the digits that ship with the package: the first two of each class in test order, sorted by class.

    Regenerate with ``demo_digits().save(heinfer.zoo.digits.DIGITS_FILE)``. Errors as :func:`mnist`.
    """
    test = mnist_test(data_dir)
    indices = np.concatenate([np.flatnonzero(test.labels == digit)[:2] for digit in range(10)])
    return DemoDigits(test.images[indices], test.labels[indices], indices)


def _read(images: _File, labels: _File, data_dir: Path | None) -> Digits:
    if data_dir is None and os.environ.get(DATA_DIR_SETTING):
        data_dir = Path(os.environ[DATA_DIR_SETTING])
    pixels, classes = (_checked(file, _locate(file, data_dir), data_dir is None) for file in (images, labels))
    return Digits(
        np.frombuffer(pixels, np.uint8, offset=images.header).reshape(-1, 28, 28),
        np.frombuffer(classes, np.uint8, offset=labels.header).astype(np.int64),
    )


def _locate(file: _File, data_dir: Path | None) -> Path:
    if data_dir is None:
        return _fetched(file)
    path = data_dir / "mnist" / file.name
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: put MNIST's four *-ubyte.gz files into {path.parent}, "
            f"or unset {DATA_DIR_SETTING} and give no data folder to have them fetched"
        )
    return path


def _fetched(file: _File) -> Path:
    """Path in the user's cache, fetched when it is not there yet."""
    url = MIRROR + file.name
    way_out = (
        f"set {DATA_DIR_SETTING} to a folder that holds mnist/{file.name} and MNIST's other three files, "
        f"or run once where {MIRROR} can be reached"
    )
    try:
        import pooch  # noqa: PLC0415 - only fetching needs it
    except ImportError:
        raise DataError(f"no data folder is set, and fetching needs pooch (heinfer[train]): {way_out}") from None
    try:
        # What is fetched is checked by its content, in _checked.
        return Path(pooch.retrieve(url, known_hash=None, fname=file.name, path=pooch.os_cache("heinfer") / "mnist"))
    except Exception as error:  # whatever transport pooch uses, the way out is the same
        raise DataError(f"{url} could not be fetched ({type(error).__name__}): {way_out}") from error


def _checked(file: _File, path: Path, cached: bool) -> bytes:
    """Unpacked bytes of the archive; a damaged archive in the cache is removed, so that a new try fetches it."""
    try:
        with gzip.open(path) as archive:
            content = archive.read(file.size + 1)  # never more, whatever the archive unpacks to
    except (OSError, EOFError, zlib.error):
        content = b""
    if hashlib.sha256(content).hexdigest() == file.sha256:
        return content
    if cached:
        path.unlink(missing_ok=True)
    way_out = "it was removed, try again" if cached else "replace it by MNIST's own"
    raise DataError(f"{path} does not hold MNIST's {file.name} (SHA-256 differs): {way_out}")

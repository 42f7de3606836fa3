"""CIFAR-10, from a folder of the user's or from where it is published; numpy only.

The archive itself is not checked: what is read of it is, by size and SHA-256, as are the files of a folder.
"""

from __future__ import annotations

import lzma
import tarfile
from functools import partial
from pathlib import Path

import numpy as np

from heinfer.zoo.archives import Content, checked, fetched, folder, found
from heinfer.zoo.data import CIFAR10, Images, Split, split

SOURCE = "https://www.cs.toronto.edu/~kriz/"
ARCHIVE = "cifar-10-binary.tar.gz"

_SIZE = 10_000 * 3073
_TRAIN = (
    Content("data_batch_1.bin", _SIZE, "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
    Content("data_batch_2.bin", _SIZE, "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
    Content("data_batch_3.bin", _SIZE, "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
    Content("data_batch_4.bin", _SIZE, "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
    Content("data_batch_5.bin", _SIZE, "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
)
_TEST = (Content("test_batch.bin", _SIZE, "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),)


def cifar10(data_dir: Path | None = None) -> Split:
    """Return CIFAR-10's training images: 45,000 to train on and the last 5,000 for choices.

    Args:
        data_dir: folder with ``cifar10/*.bin.xz``, the files of the published binary version, each compressed by xz;
            None takes the environment variable HEINFER_DATA_DIR, and when that is not set, fetches the published
            archive (170 MB) once into the user's cache.

    Raises:
        DataError: a file is missing, damaged or cannot be fetched.
    """
    return split(_read(_TRAIN, data_dir))


def cifar10_test(data_dir: Path | None = None) -> Images:
    """Return CIFAR-10's 10,000 test images, for a final figure only. Arguments and errors as :func:`cifar10`."""
    return _read(_TEST, data_dir)


def _read(files: tuple[Content, ...], data_dir: Path | None) -> Images:
    """Records of one label byte and the pixels, channel by channel and row by row."""
    at = folder(data_dir)
    records = np.frombuffer(b"".join(_unpacked(file, at) for file in files), np.uint8).reshape(-1, 3073)
    return Images(records[:, 1:].reshape(-1, *CIFAR10.shape), records[:, 0].astype(np.int64))


def _unpacked(file: Content, at: Path | None) -> bytes:
    if at:
        path = found(at / "cifar10" / f"{file.name}.xz", "CIFAR-10's six *.bin.xz files")
        return checked(file, partial(_from_xz, path), path, False, "CIFAR-10's")
    needed = f"cifar10/{file.name}.xz and CIFAR-10's other five files"
    path = fetched(SOURCE, "cifar10", ARCHIVE, needed)
    return checked(file, partial(_from_tar, path, file.name), path, True, "CIFAR-10's")


def _from_xz(path: Path, most: int) -> bytes:
    with lzma.open(path) as archive:
        return archive.read(most)


def _from_tar(path: Path, name: str, most: int) -> bytes:
    """Read one file of the archive, without writing it anywhere."""
    with tarfile.open(path) as archive:
        member = archive.extractfile(f"cifar-10-batches-bin/{name}")
        return member.read(most) if member else b""

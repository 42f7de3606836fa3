"""CIFAR-10 from its files: read, checked, refused."""

import hashlib
import io
import lzma
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from heinfer.errors import DataError
from heinfer.zoo import cifar
from heinfer.zoo.archives import DATA_DIR_SETTING, Content
from heinfer.zoo.cifar import cifar10, cifar10_test
from heinfer.zoo.data import CIFAR10, normalise

needs_cifar = pytest.mark.skipif(
    not (Path(os.environ.get(DATA_DIR_SETTING, "nowhere")) / "cifar10").is_dir(),
    reason=f"{DATA_DIR_SETTING} names no folder with CIFAR-10",
)

RECORDS = np.random.default_rng(0).integers(0, 256, (12, 3073)).astype(np.uint8)
RECORDS[:, 0] %= 10


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder in CIFAR-10's form whose test set is twelve images, with its size and hash in place."""
    content = RECORDS.tobytes()
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "test_batch.bin.xz").write_bytes(lzma.compress(content))
    made = Content("test_batch.bin", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(cifar, "_TEST", (made,))
    return tmp_path


@pytest.fixture
def archive(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the published archive has it, in place of what would be fetched."""
    pooch = pytest.importorskip("pooch")
    path, content = tiny / cifar.ARCHIVE, RECORDS.tobytes()
    with tarfile.open(path, "w:gz") as made:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = len(content)
        made.addfile(member, io.BytesIO(content))

    def retrieve(url, known_hash, fname, path):
        assert (url, known_hash) == (cifar.SOURCE + cifar.ARCHIVE, None)
        return str(tiny / fname)

    monkeypatch.delenv(DATA_DIR_SETTING, raising=False)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    return path


def test_a_folder_is_read(tiny):
    read = cifar10_test(tiny)
    assert read.images.shape == (12, 3, 32, 32)
    assert read.labels.dtype == np.int64
    assert read.labels.tolist() == RECORDS[:, 0].tolist()
    # 1024 bytes a channel, row by row
    assert read.images[3, 2, 5, 7] == RECORDS[3, 1 + 2 * 1024 + 5 * 32 + 7]


def test_the_published_archive_is_read_where_no_folder_is_set(archive):
    assert np.array_equal(cifar10_test().images.reshape(12, -1), RECORDS[:, 1:])


@pytest.mark.parametrize("damage", [b"", b"no archive"])
def test_a_damaged_download_is_removed(archive, damage):
    archive.write_bytes(damage)
    with pytest.raises(DataError, match=r"does not hold CIFAR-10's test_batch.bin .*it was removed, try again"):
        cifar10_test()
    assert not archive.exists()


def test_a_missing_file_names_both_ways_out(tmp_path):
    with pytest.raises(DataError, match=r"data_batch_1.*does not exist.*put CIFAR-10's six.*unset HEINFER_DATA_DIR"):
        cifar10(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"no xz", lzma.compress(b"something else"), lzma.compress(bytes(10**7))])
def test_a_damaged_file_is_refused_and_kept(tiny, damage):
    path = tiny / "cifar10" / "test_batch.bin.xz"
    path.write_bytes(damage)
    with pytest.raises(DataError, match=r"does not hold CIFAR-10's test_batch.bin .*replace it"):
        cifar10_test(tiny)
    assert path.exists()


def test_normalised_pixels_have_known_ends():
    images = np.zeros((2, 3, 32, 32), np.uint8)
    images[1] = 255
    result = normalise(images)
    assert result.shape == (2, 3, 32, 32)
    assert result.dtype == np.float32
    for channel, (mean, deviation) in enumerate(zip(CIFAR10.mean, CIFAR10.deviation, strict=True)):
        np.testing.assert_allclose(result[:, channel, 0, 0], [-mean / deviation, (1 - mean) / deviation], rtol=1e-5)


@needs_cifar
def test_cifar_is_split_for_choices():
    parts, test = cifar10(), cifar10_test()
    assert (len(parts.train), len(parts.held_out), len(test)) == (45_000, 5_000, 10_000)
    assert np.bincount(parts.whole.labels).tolist() == [5_000] * 10
    assert np.bincount(test.labels).tolist() == [1_000] * 10
    seen = parts.train.images / 255
    np.testing.assert_allclose(seen.mean((0, 2, 3)), CIFAR10.mean, atol=2e-3)
    np.testing.assert_allclose(seen.std((0, 2, 3)), CIFAR10.deviation, atol=2e-3)

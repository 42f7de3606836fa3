"""MNIST from its files: read, checked, refused."""

import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from heinfer.errors import DataError
from heinfer.zoo import data, digits
from heinfer.zoo.data import DATA_DIR_SETTING, demo_digits, mnist, mnist_test, normalise

needs_mnist = pytest.mark.skipif(
    not os.environ.get(DATA_DIR_SETTING), reason=f"{DATA_DIR_SETTING} names no folder with MNIST"
)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder in MNIST's form whose test set is the shipped digits, with its sizes and hashes in place."""
    shipped = digits()
    (tmp_path / "mnist").mkdir()
    for constant, header, values in (
        ("_TEST_IMAGES", 16, shipped.images),
        ("_TEST_LABELS", 8, shipped.labels.astype(np.uint8)),
    ):
        name = getattr(data, constant).name
        content = bytes(header) + values.tobytes()
        (tmp_path / "mnist" / name).write_bytes(gzip.compress(content))
        file = data._file(name, len(content), hashlib.sha256(content).hexdigest(), header)
        monkeypatch.setattr(data, constant, file)
    return tmp_path


def test_the_shipped_digits_are_two_of_each_class():
    shipped = digits()
    assert shipped.images.shape == (20, 28, 28)
    assert shipped.images.dtype == np.uint8
    assert shipped.labels.dtype == np.int64
    assert shipped.labels.tolist() == [d for d in range(10) for _ in range(2)]
    assert all(first < second for first, second in shipped.indices.reshape(10, 2))


def test_digits_survive_a_file(tmp_path):
    shipped = digits()
    shipped.save(tmp_path / "digits.npz")
    read = type(shipped).load(tmp_path / "digits.npz")
    assert np.array_equal(read.images, shipped.images)
    assert np.array_equal(read.indices, shipped.indices)


def test_a_folder_is_read(tiny, monkeypatch):
    by_argument = mnist_test(tiny)
    monkeypatch.setenv(DATA_DIR_SETTING, str(tiny))
    by_setting = mnist_test()
    for read in (by_argument, by_setting):
        assert np.array_equal(read.images, digits().images)
        assert np.array_equal(read.labels, digits().labels)
        assert read.labels.dtype == np.int64


def test_demo_digits_are_the_first_two_of_each_class(tiny):
    assert demo_digits(tiny).indices.tolist() == list(range(20))


def test_a_missing_file_names_both_ways_out(tmp_path):
    with pytest.raises(DataError, match=r"(?s)train-images.*does not exist.*put MNIST's.*unset HEINFER_DATA_DIR"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    "damage", [b"", b"no gzip", gzip.compress(b"something else", mtime=0), gzip.compress(bytes(10**7))]
)
def test_a_damaged_file_is_refused_and_kept(tiny, damage):
    path = tiny / "mnist" / data._TEST_IMAGES.name
    path.write_bytes(damage)
    with pytest.raises(DataError, match="does not hold MNIST's"):
        mnist_test(tiny)
    assert path.exists()


def test_a_truncated_file_is_refused(tiny):
    path = tiny / "mnist" / data._TEST_IMAGES.name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="does not hold MNIST's"):
        mnist_test(tiny)


def test_without_a_folder_the_files_are_fetched(tiny, monkeypatch):
    pooch = pytest.importorskip("pooch")
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append(url)
        return str(tiny / "mnist" / fname)

    monkeypatch.delenv(DATA_DIR_SETTING, raising=False)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert len(mnist_test()) == 20
    assert asked == [data.MIRROR + f.name for f in (data._TEST_IMAGES, data._TEST_LABELS)]


def test_a_damaged_download_is_removed(tiny, monkeypatch):
    pooch = pytest.importorskip("pooch")
    path = tiny / "mnist" / data._TEST_IMAGES.name
    path.write_bytes(b"an error page")
    monkeypatch.delenv(DATA_DIR_SETTING, raising=False)
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: str(path))
    with pytest.raises(DataError, match="it was removed, try again"):
        mnist_test()
    assert not path.exists()


def test_without_folder_and_network_both_ways_out_are_named(monkeypatch):
    pooch = pytest.importorskip("pooch")

    def retrieve(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.delenv(DATA_DIR_SETTING, raising=False)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(DataError, match=rf"could not be fetched.*set {DATA_DIR_SETTING} to a folder.*or run once"):
        mnist()


def test_normalised_images_have_a_channel_and_known_ends():
    images = np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1).repeat(28, 1).repeat(28, 2)
    result = normalise(images)
    assert result.shape == (2, 1, 28, 28)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[:, 0, 0, 0], [-0.1307 / 0.3081, (1 - 0.1307) / 0.3081], rtol=1e-6)


def test_names_digits_and_data_need_no_torch():
    code = "import sys, heinfer.zoo, heinfer.zoo.data; heinfer.zoo.digits(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_mnist
def test_mnist_is_split_for_choices():
    parts = mnist()
    assert (len(parts.train), len(parts.held_out)) == (55_000, 5_000)
    assert parts.train.images.shape == (55_000, 28, 28)
    assert np.bincount(parts.held_out.labels).min() > 400
    assert np.array_equal(parts.whole.images[54_999:55_001], [parts.train.images[-1], parts.held_out.images[0]])
    assert len(parts.whole) == 60_000
    assert len(mnist_test()) == 10_000


@needs_mnist
def test_the_shipped_digits_are_what_mnist_gives():
    made, shipped = demo_digits(), digits()
    assert np.array_equal(made.images, shipped.images)
    assert np.array_equal(made.labels, shipped.labels)
    assert np.array_equal(made.indices, shipped.indices)

"""The client against a real service in this process: calls, keys, files, errors."""

import asyncio
import errno
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import httpx
import numpy as np
import pytest
from in_process import URL, Recorded, RunningService, running_service
from PIL import Image
from tiny_model import LABELS, WIDE, cleartext_scores, tiny_bundle

from heinfer.ckks.parameters import Parameters
from heinfer.ckks.secret import SecretSide
from heinfer.errors import (
    FormatError,
    ImageError,
    ServiceError,
    SettingError,
    UnknownKeysError,
    UnknownModelError,
)
from heinfer_client import AsyncClient, Client, Prediction, messages, session
from heinfer_client.transfer import headers_of

IMAGES = [np.random.default_rng(seed).random((4, 4)) for seed in range(3)]
IMAGE = IMAGES[0]
MODEL = tiny_bundle()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL, tiny_bundle("wide", parameters=WIDE)]) as service:
        yield service


@pytest.fixture
def transport(running: RunningService) -> Recorded:
    return Recorded(running.transport)


@pytest.fixture
def client(transport: Recorded):
    with Client(URL, model="tiny", transport=transport) as client:
        yield client


def assert_right(prediction: Prediction, image: np.ndarray) -> None:
    expected = cleartext_scores(image)
    assert prediction.scores == pytest.approx(expected, abs=0.05)
    assert prediction.label == LABELS[int(expected.argmax())]


# Predictions -----------------------------------------------------------------------------------


def test_it_predicts_what_the_cleartext_model_predicts(client, transport):
    prediction = client.encrypt_and_predict(IMAGE)
    assert_right(prediction, IMAGE)
    assert 0 < prediction.client_seconds < 5
    assert 0 < prediction.server_seconds < 5
    sent = {request.url.path: len(request.content) for request in transport.requests}
    assert prediction.upload_bytes == client.upload_bytes == sent["/infer"]
    assert client.key_bytes == sent["/models/tiny/keys"]
    assert prediction.download_bytes == client._session.codec.download_bytes


def test_many_are_predicted_one_by_one_under_one_set_of_keys(client, transport):
    for prediction, image in zip(client.encrypt_and_predict_many(IMAGES), IMAGES, strict=True):
        assert_right(prediction, image)
        assert prediction.images == 1
    assert_right(client.encrypt_and_predict(IMAGE), IMAGE)
    assert (transport.count("/manifest"), transport.count("/keys"), transport.count("/infer")) == (1, 1, 4)
    assert client.encrypt_and_predict_many([]) == []


def test_an_image_may_have_several_forms(client):
    integers = (IMAGE * 255).round().astype(np.uint8)
    for image in (integers, integers[None], integers / 255, Image.fromarray(integers), np.float32(integers / 255)):
        assert_right(client.encrypt_and_predict(image), integers / 255)


def test_what_is_sent_differs_every_time(client, transport):
    client.encrypt_and_predict_many([IMAGE, IMAGE])
    first, second = (request.content for request in transport.requests if request.url.path == "/infer")
    assert first[100:] != second[100:]


class Tensor:
    """As PyTorch's is named, which takes seconds to import."""


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((5, 4)), r"\(1, 4, 4\) or \(4, 4\) is expected, got \(5, 4\)"),
        (np.zeros(16), r"got \(16,\)"),
        (np.zeros((3, 4, 4)), r"got \(3, 4, 4\): encrypt_and_predict_many takes several images"),
        (np.zeros((3, 1, 4, 4)), r"got \(3, 1, 4, 4\): encrypt_and_predict_many takes"),
        (np.zeros((4, 4, 1)), r"got \(4, 4, 1\): use image.transpose\(2, 0, 1\)"),
        (np.zeros((4, 4), dtype=np.int64), "got int64: say which number is white, such as maximum=255"),
        (np.zeros((4, 4), dtype=np.uint16), "got uint16: say which number is white, such as maximum=65535"),
        (np.zeros((4, 4), dtype=bool), "got bool: say which number is white, such as maximum=1"),
        (np.ma.masked_equal(IMAGE, 0), r"without a mask is expected: .* image.filled\(0\)"),
        (Tensor(), r"got Tensor: use image.numpy\(\)"),
        (np.zeros((4, 4), dtype=complex), "got complex128"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), np.inf), "infinity"),
        (np.full((4, 4), 1.5), r"0..1 are expected, got 1.5..1.5"),
        (np.full((4, 4), -0.1), r"got -0.1..-0.1"),
        (Image.new("RGB", (4, 4), "red"), "mode L is expected, got RGB with colours"),
        (Image.new("RGBA", (4, 4)), "an opaque image is expected"),
        (Image.new("L", (4, 5)), r"got \(5, 4\)"),
        ("image.png", "got str"),
        (None, "got NoneType"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_before_anything_of_it_is_sent(client, transport, image, reason):
    with pytest.raises(ImageError, match=reason):
        client.encrypt_and_predict(image)
    with pytest.raises(ImageError, match=rf"^image 2 of 3: .*{reason}"):
        client.encrypt_and_predict_many([IMAGE, image, IMAGE])
    assert transport.paths == ["/models/tiny/manifest"]


def test_what_helps_an_image_helps(client):
    integers = (IMAGE * 255).round().astype(np.uint8)
    assert_right(client.encrypt_and_predict(integers[..., None].transpose(2, 0, 1)), integers / 255)
    assert_right(client.encrypt_and_predict(integers.astype(np.int64), maximum=255), integers / 255)
    for prediction in client.encrypt_and_predict_many([integers.astype(np.uint16) * 16] * 2, maximum=4080):
        assert_right(prediction, integers / 255)
    for prediction, image in zip(client.encrypt_and_predict_many(np.stack(IMAGES)), IMAGES, strict=True):
        assert_right(prediction, image)


def test_pictures_mean_what_their_files_say(client, tmp_path):
    pixels = (IMAGE * 255).round().astype(np.uint8)
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # turned by the camera
    picture.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    picture.convert("RGB").save(tmp_path / "grey.png")
    picture.convert("LA").save(tmp_path / "opaque.png")
    Image.fromarray(pixels.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    for name in ("turned.png", "deep.png", "grey.png", "opaque.png", "float.tiff"):
        with Image.open(tmp_path / name) as image:
            upright = np.rot90(pixels, -1) if name == "turned.png" else pixels
            assert_right(client.encrypt_and_predict(image), upright / 255)


# Keys ------------------------------------------------------------------------------------------


def test_keys_that_the_server_dropped_are_registered_again(client, running, transport):
    client.prepare()
    running.http.delete(f"/keys/{client._session._ready.key_id}")
    assert_right(client.encrypt_and_predict(IMAGE), IMAGE)
    assert (transport.count("/keys"), transport.count("/infer")) == (2, 2)


def test_they_are_registered_again_only_once(running):
    class Forgetful(Recorded):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if request.url.path.endswith("/keys"):
                running.http.delete(answer.headers["location"])
            return answer

    transport = Forgetful(running.transport)
    with Client(URL, model="tiny", transport=transport) as client, pytest.raises(UnknownKeysError):
        client.encrypt_and_predict(IMAGE)
    assert (transport.count("/keys"), transport.count("/infer")) == (2, 2)


def test_without_a_path_nothing_is_written(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    client.encrypt_and_predict(IMAGE)
    assert list(tmp_path.iterdir()) == []


def test_with_a_path_keys_outlive_the_client(running, tmp_path):
    path = tmp_path / "tiny.key"
    with Client(URL, model="tiny", keys_path=path, transport=running.transport) as client:
        client.prepare()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny.key", "tiny.key.registration"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    transport = Recorded(running.transport)
    with Client(URL, model="tiny", keys_path=str(path), transport=transport) as client:
        assert_right(client.encrypt_and_predict(IMAGE), IMAGE)
    assert transport.paths == ["/models/tiny/manifest", "/infer"]


def test_a_registration_elsewhere_or_damaged_is_made_anew(running, tmp_path):
    path, record = tmp_path / "key", tmp_path / "key.registration"
    with Client(URL, model="tiny", keys_path=path, transport=running.transport) as client:
        client.prepare()
    secret = path.read_bytes()
    elsewhere = json.loads(record.read_text()) | {"url": "http://elsewhere"}
    for damaged in (json.dumps(elsewhere), "{", ""):
        record.write_text(damaged)
        transport = Recorded(running.transport)
        with Client(URL, model="tiny", keys_path=path, transport=transport) as client:
            assert_right(client.encrypt_and_predict(IMAGE), IMAGE)
        assert transport.count("/keys") == 1
        assert path.read_bytes() == secret


def test_a_registration_of_another_secret_key_is_made_anew(running, tmp_path):
    path, record = tmp_path / "key", tmp_path / "key.registration"
    for _ in range(2):  # the second time the key is gone, the registration is not
        transport = Recorded(running.transport)
        with Client(URL, model="tiny", keys_path=path, transport=transport) as client:
            assert_right(client.encrypt_and_predict(IMAGE), IMAGE)
        assert transport.count("/keys") == 1
        path.unlink()
    assert record.exists()


def test_a_stored_key_is_neither_overwritten_nor_trusted_blindly(running, tmp_path):
    path = tmp_path / "key"
    with Client(URL, model="wide", keys_path=path, transport=running.transport) as client:
        client.prepare()
    before = path.read_bytes()
    with (
        Client(URL, model="tiny", keys_path=path, transport=running.transport) as client,
        pytest.raises(SettingError, match="other CKKS parameters"),
    ):
        client.prepare()
    path.chmod(0o644)
    with (
        Client(URL, model="wide", keys_path=path, transport=running.transport) as client,
        pytest.raises(FormatError, match="others may read"),
    ):
        client.prepare()
    assert path.read_bytes() == before


def test_a_place_that_takes_no_keys_is_named(running, tmp_path):
    with (
        Client(URL, model="tiny", keys_path=tmp_path / "no" / "key", transport=running.transport) as client,
        pytest.raises(SettingError, match="keys cannot be kept at"),
    ):
        client.prepare()


def test_a_key_that_cannot_be_read_is_named(running, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    with (
        Client(URL, model="tiny", keys_path=tmp_path / "folder", transport=running.transport) as client,
        pytest.raises(SettingError, match=r"the keys at .*folder cannot be read: Is a directory"),
    ):
        client.prepare()
    monkeypatch.setattr(Path, "exists", refused(errno.EACCES))  # as in a folder of somebody else's
    with (
        Client(URL, model="tiny", keys_path=tmp_path / "key", transport=running.transport) as client,
        pytest.raises(SettingError, match=r"the keys at .*key cannot be read: Permission denied"),
    ):
        client.prepare()


def test_a_key_on_a_read_only_folder_serves_with_a_warning(running, tmp_path, monkeypatch):
    path = tmp_path / "key"
    SecretSide.generate(MODEL.manifest.to_parameters()).save(path)
    monkeypatch.setattr("tempfile.mkstemp", refused(errno.EROFS))
    with Client(URL, model="tiny", keys_path=path, transport=running.transport) as client:
        with pytest.warns(RuntimeWarning, match=r"key\.registration cannot be written \(Read-only .*again") as told:
            assert_right(client.encrypt_and_predict(IMAGE), IMAGE)
        assert_right(client.encrypt_and_predict(IMAGE), IMAGE)
    assert len(told) == 1


def refused(number: int) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_registration_that_cannot_be_put_in_place_leaves_nothing(running, tmp_path):
    (tmp_path / "key.registration").mkdir()
    with (
        Client(URL, model="tiny", keys_path=tmp_path / "key", transport=running.transport) as client,
        pytest.warns(RuntimeWarning, match="cannot be written"),
    ):
        client.prepare()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["key", "key.registration"]


def test_progress_needs_a_terminal(client, capfd):
    client.prepare()
    assert capfd.readouterr() == ("", "")


# The asynchronous twin -------------------------------------------------------------------------


class RecordedAsync(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.paths: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        return await self._inner.handle_async_request(request)


def test_the_twin_does_the_same(running):
    transport = RecordedAsync(httpx.ASGITransport(running.app))

    async def use() -> list[Prediction]:
        async with AsyncClient(URL, model="tiny", transport=transport) as client:
            one, several = await asyncio.gather(
                client.encrypt_and_predict(IMAGES[0]), client.encrypt_and_predict_many(IMAGES[1:])
            )
            assert client.key_bytes > client.upload_bytes > 0
            assert client.manifest == MODEL.manifest
            with pytest.raises(ImageError, match=r"pixels in 0..1 are expected, got 0..2"):
                await client.encrypt_and_predict(np.diag([0, 1, 2, 2]), maximum=1)
            with pytest.raises(ImageError, match=r"^image 1 of 1: pixels in 0..1 are"):
                await client.encrypt_and_predict_many([np.diag([0, 1, 2, 2])], maximum=1)
            return [one, *several]

    for prediction, image in zip(running.portal.call(use), IMAGES, strict=True):
        assert_right(prediction, image)
    *called, forgotten = transport.paths
    assert sorted(called) == ["/infer"] * 3 + ["/models/tiny/keys", "/models/tiny/manifest"]
    assert forgotten.startswith("/keys/")


def test_who_is_cancelled_while_a_secret_is_made_leaves_no_other_behind(running, monkeypatch):
    made, generate = [], SecretSide.generate

    def slowly(parameters: Parameters) -> SecretSide:
        made.append(generate(parameters))
        time.sleep(0.2)
        return made[-1]

    monkeypatch.setattr(session.SecretSide, "generate", slowly)

    async def use() -> Prediction:
        async with AsyncClient(URL, model="tiny", transport=httpx.ASGITransport(running.app)) as client:
            first = asyncio.create_task(client.prepare())
            while not made:
                await asyncio.sleep(0.01)
            first.cancel()
            prediction = await client.encrypt_and_predict(IMAGES[0])
            assert first.cancelled()
            return prediction

    assert_right(running.portal.call(use), IMAGES[0])
    assert len(made) == 1


def test_an_event_loop_that_ends_meanwhile_waits_for_the_thread(running, monkeypatch):
    begun, made, generate = [], [], SecretSide.generate

    def slowly(parameters: Parameters) -> SecretSide:
        begun.append(True)
        time.sleep(0.2)
        made.append(generate(parameters))
        return made[-1]

    monkeypatch.setattr(session.SecretSide, "generate", slowly)

    async def use() -> asyncio.Task[None]:
        client = AsyncClient(URL, model="tiny", transport=httpx.MockTransport(manifest_only))
        task = asyncio.create_task(client.prepare())
        while not begun:
            await asyncio.sleep(0.01)
        return task

    task = asyncio.run(use())
    assert task.cancelled()
    assert len(made) == 1


def manifest_only(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=MODEL.manifest.to_bytes())


def test_a_service_takes_note_of_no_more_than_a_day():
    assert headers_of(messages.Request("GET", "/", seconds=1e6))["Heinfer-Timeout"] == "86400.000"


def test_the_twin_has_the_same_errors(running):
    async def use() -> None:
        transport = httpx.ASGITransport(running.app)
        async with AsyncClient(URL, model="nothing", transport=transport) as client:
            with pytest.raises(UnknownModelError):
                await client.prepare()
        async with AsyncClient(URL, model="tiny", transport=transport) as client:
            with pytest.raises(ImageError):
                await client.encrypt_and_predict(np.zeros((5, 5)))

    running.portal.call(use)


def test_a_closed_client_says_so(running):
    client = Client(URL, model="tiny", transport=running.transport)
    client.prepare()
    client.close()
    for call in (client.prepare, lambda: client.encrypt_and_predict(IMAGE)):
        with pytest.raises(SettingError, match="this client is closed"):
            call()

    async def use() -> None:
        async with AsyncClient(URL, model="tiny", transport=httpx.ASGITransport(running.app)) as client:
            await client.prepare()
        with pytest.raises(SettingError, match="this client is closed"):
            await client.encrypt_and_predict(IMAGE)

    running.portal.call(use)


def test_a_twin_stays_in_its_event_loop():
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, content=MODEL.manifest.to_bytes())

    client = AsyncClient(URL, model="tiny", transport=httpx.MockTransport(answer))
    for error in (ServiceError, SettingError):  # the first is that of a key's registration, which is none
        with pytest.raises(error) as caught:
            asyncio.run(client.prepare())
    assert "another event loop" in str(caught.value)
    assert asked == ["/models/tiny/manifest", "/models/tiny/keys"]
    asyncio.run(client.aclose())

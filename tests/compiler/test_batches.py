"""Batches from end to end: many images in one request, each of which gets its own scores."""

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import URL, Recorded, RunningService, running_service
from small_model import NETWORK, SHAPE, small_model
from tiny_model import LABELS, cleartext_scores, tiny_bundle

from heinfer.compiler.model import CompiledModel
from heinfer.errors import ImageError
from heinfer.formats import bundle as bundles
from heinfer.planner.requirements import Requirements
from heinfer_cli.comparison import cleartext_scores as scores_of_circuit
from heinfer_client import AsyncClient, Client, Prediction
from heinfer_client.codec import Codec

BATCH = 4
RNG = np.random.default_rng(0)
# The darkest and the lightest image there can be are neighbours of every other.
IMAGES = [np.zeros((4, 4)), np.ones((4, 4)), *RNG.random((8, 4, 4))]
MODEL = tiny_bundle("four", batch=BATCH)


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return small_model(Requirements(batch=BATCH))


@pytest.fixture(scope="module")
def running(tmp_path_factory, compiled):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL, compiled.bundle]) as service:
        yield service


@pytest.fixture
def transport(running: RunningService) -> Recorded:
    return Recorded(running.transport)


@pytest.fixture
def client(transport: Recorded):
    with Client(URL, model="four", transport=transport) as client:
        yield client


def assert_right(predictions: list[Prediction], images: list[np.ndarray]) -> None:
    for prediction, image in zip(predictions, images, strict=True):
        expected = cleartext_scores(image)
        assert prediction.scores == pytest.approx(expected, abs=0.05)
        assert prediction.label == LABELS[int(expected.argmax())]


# The client ------------------------------------------------------------------------------------


def test_images_go_in_whole_batches_and_come_back_in_order(client, transport):
    predictions = client.encrypt_and_predict_many(IMAGES)
    assert_right(predictions, IMAGES)
    assert [prediction.images for prediction in predictions] == [4] * 8 + [2] * 2
    sent = [len(request.content) for request in transport.requests if request.url.path == "/infer"]
    assert sent == [client.upload_bytes] * 3 == [predictions[0].upload_bytes] * 3


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5])
def test_any_number_of_images_takes_as_few_requests_as_hold_it(client, transport, count):
    assert_right(client.encrypt_and_predict_many(iter(IMAGES[:count])), IMAGES[:count])
    assert transport.count("/infer") == -(-count // BATCH)


def test_a_model_that_takes_a_batch_takes_one_image(client, transport):
    prediction = client.encrypt_and_predict(IMAGES[2])
    assert_right([prediction], IMAGES[2:3])
    assert (prediction.images, transport.count("/infer")) == (1, 1)


def test_an_array_of_images_is_many(client):
    pixels = (np.stack(IMAGES[:3]) * 255).round().astype(np.uint8)
    assert_right(client.encrypt_and_predict_many(pixels), list(pixels / 255))


def test_an_image_that_does_not_fit_is_named_and_nothing_is_sent(client, transport):
    with pytest.raises(ImageError, match=r"^image 6 of 6: .*\(1, 4, 4\) or \(4, 4\) is expected, got \(4, 5\)"):
        client.encrypt_and_predict_many([*IMAGES[:5], np.zeros((4, 5))])
    assert transport.paths == ["/models/four/manifest"]
    with pytest.raises(ImageError, match=r"^an image of shape \(1, 4, 4\) or \(4, 4\)"):
        client.encrypt_and_predict(np.zeros((BATCH, 4, 4)))


def test_keys_that_the_server_dropped_are_registered_again(client, running, transport):
    client.prepare()
    running.http.delete(f"/keys/{client._session._ready.key_id}")
    assert_right(client.encrypt_and_predict_many(IMAGES), IMAGES)
    assert (transport.count("/keys"), transport.count("/infer")) == (2, 4)


def test_the_twin_does_the_same(running):
    async def use() -> list[Prediction]:
        async with AsyncClient(URL, model="four", transport=httpx.ASGITransport(running.app)) as client:
            with pytest.raises(ImageError, match=r"^image 2 of 2: "):
                await client.encrypt_and_predict_many([IMAGES[0], IMAGES])
            one = await client.encrypt_and_predict(IMAGES[0])
            return [one, *await client.encrypt_and_predict_many(IMAGES[1:])]

    predictions = running.portal.call(use)
    assert_right(predictions, IMAGES)
    assert [prediction.images for prediction in predictions] == [1, 4, 4, 4, 4, 4, 4, 4, 4, 1]


# Packing ---------------------------------------------------------------------------------------

INPUTS = [RNG.random((1, 4, 4)) for _ in range(6)]


def test_places_without_an_image_have_one_again():
    codec = Codec(MODEL.manifest)
    packed = codec.pack(INPUTS)
    assert packed.shape == (2, 1, codec.parameters.slots)
    for place, number in enumerate([0, 1, 2, 3, 4, 5, 0, 1]):
        held = packed[place // BATCH, 0, place % BATCH :: BATCH]
        assert np.array_equal(held, np.resize(INPUTS[number], held.shape))


@settings(max_examples=30, deadline=None)
@given(batch=st.sampled_from([1, 2, 8, 64]), count=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_no_image_has_a_part_in_anothers_scores(batch, count, seed):
    images = list(np.random.default_rng(seed).random((count, 4, 4)))
    scores = scores_of_circuit(tiny_bundle(batch=batch), images)
    assert scores.shape == (count, 4)
    assert np.abs(scores - [cleartext_scores(image) for image in images]).max() < 1e-10
    changed = scores_of_circuit(tiny_bundle(batch=batch), [*images[:-1], 1 - images[-1]])
    assert np.array_equal(changed[:-1], scores[:-1])


# Compiled models -------------------------------------------------------------------------------


def test_a_compiled_batch_says_so_in_manifest_and_file(compiled):
    manifest = compiled.manifest
    assert (manifest.batch, manifest.input_shape, manifest.output_shape) == (BATCH, SHAPE, (3,))
    again = bundles.from_bytes(bundles.to_bytes(compiled.bundle))
    assert again.manifest == manifest
    x = RNG.random((6, *SHAPE))
    assert np.abs(scores_of_circuit(again, list(x)) - NETWORK(x)).max() < 1e-10
    assert np.array_equal(compiled(x), scores_of_circuit(again, list(x)))


def test_a_compiled_batch_is_evaluated_encrypted(running, compiled):
    x = RNG.random((6, *SHAPE))
    with Client(URL, model="small", transport=running.transport) as client:
        predictions = client.encrypt_and_predict_many(x)
    expected = NETWORK(x)
    for prediction, own in zip(predictions, expected, strict=True):
        assert prediction.scores == pytest.approx(own, abs=2**-8 * np.abs(expected).max())
    assert [prediction.images for prediction in predictions] == [4] * 4 + [2] * 2

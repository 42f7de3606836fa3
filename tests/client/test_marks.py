"""Answers beyond what parameters can represent: they are marked, others are not, and nobody learns of it."""

import copy
import dataclasses
import json
import logging
import pickle
import warnings
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from in_process import URL, Recorded, RunningService, running_service
from tiny_model import FACTOR, WEIGHTS, cleartext_scores, overflowing_bundle, tiny_bundle
from typer.testing import CliRunner

from benchmarks.support.wrapping import wrapped
from heinfer.circuit.interpret import run
from heinfer.compiler.compile import compile_network
from heinfer.errors import MissingScoresError, OutOfRangeError, OutOfRangeWarning, SettingError
from heinfer.formats import bundle as bundles
from heinfer.formats.bundle import Bundle
from heinfer.formats.manifest import Preprocessing
from heinfer.layout.layout import ZERO, Layout
from heinfer.layout.packings import cyclic_pack, dense_pack
from heinfer.network.ir import Network, Node
from heinfer.network.operators import Dense
from heinfer.planner.requirements import Requirements
from heinfer_cli.local_server import local_server
from heinfer_cli.main import app
from heinfer_client import AsyncClient, Client, Confidence, Prediction
from heinfer_client.codec import Codec
from heinfer_client.marks import Marks, read_marks
from heinfer_client.prediction import confidence_of

DARK, BRIGHT = np.full((4, 4), 0.3), np.full((4, 4), 1.0)
BRIGHT[:, 1:3] = 0.25, 0.4  # no plain multiple: the coefficients wrap differently
IN_RANGE = Marks(in_range=True, noise=1e-3)


def loud_bundle(name: str) -> Bundle:
    """The tiny model, with scores that are a million times as large."""
    made = tiny_bundle(name)
    output = made.manifest.output.model_copy(update={"exponent": 20})
    return dataclasses.replace(made, manifest=made.manifest.model_copy(update={"outputs": (output,)}))


MODELS = [
    loud_bundle("loud"),
    overflowing_bundle("three"),
    overflowing_bundle("pair", batch=2),
    tiny_bundle("whole", weights=FACTOR * WEIGHTS),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), MODELS) as service:
        yield service


def quiet(running: RunningService, model: str, **arguments) -> Client:
    return Client(URL, model=model, transport=running.transport, **arguments)


# The mathematics -------------------------------------------------------------------------------


@st.composite
def layouts(draw) -> Layout:
    """Of scores with at least two zeros a period, or of few scores in a whole ciphertext, or of a batch."""
    slots = draw(st.sampled_from([16, 64, 256]))
    scores = draw(st.integers(1, 10))
    if draw(st.booleans()):
        return dense_pack((scores,), slots)
    batch = draw(st.sampled_from([1, 2, 4]))
    assume(scores not in (1, 3, 7) and (scores & scores - 1))
    assume(slots // batch >= 16)
    return cyclic_pack((scores,), slots // batch).interleaved(batch)


@settings(max_examples=300, deadline=None)
@given(layout=layouts(), seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_what_stays_below_the_limit_never_wraps_and_is_not_marked(layout, seed, share):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-1, 1, layout.shape) * share * 0.99
    slots = layout.pack(scores) + rng.normal(scale=2**-12, size=layout.index.shape)
    assert np.allclose(wrapped(slots, 1.0), slots)
    assert read_marks(wrapped(slots, 1.0), layout, 1.0).in_range


@settings(max_examples=1000, deadline=None)
@given(layout=layouts(), seed=st.integers(0, 2**32), size=st.floats(0, 12))
def test_what_has_wrapped_is_marked(layout, seed, size):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=layout.shape) * 2**size
    noise = rng.normal(scale=2**-12, size=(*layout.index.shape, 2)).view(complex)[..., 0]
    slots = layout.pack(scores) + noise
    answer = wrapped(slots, 1.0)
    if not np.allclose(answer, slots):
        assert not read_marks(answer, layout, 1.0).in_range


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_without_a_zero_what_has_wrapped_can_look_like_another_answer(classes):
    """The reason why the compiler leaves zeros: without them, scores beyond the limit are the only mark."""
    rng = np.random.default_rng(0)
    layout = cyclic_pack((classes,), 64)
    scores = rng.normal(size=(4000, classes)) * 1000
    marks = [read_marks(wrapped(layout.pack(own), 1.0), layout, 1.0) for own in scores]
    missed = np.mean([mark.in_range for mark in marks])
    # The volume of the cube of slots below the limit, in that of the cell of coefficients.
    assert missed == pytest.approx(classes ** (-classes / 2) * 2 ** (-(classes - 1) / 2), rel=0.2, abs=0.002)


@pytest.mark.filterwarnings("ignore::heinfer.errors.NoiseWarning")
@pytest.mark.parametrize("classes", [1, 2, 3, 4, 8])
def test_the_compiler_leaves_zeros_beside_scores_however_few(classes):
    """So that no compiled model is one of those, also in a batch."""
    rng = np.random.default_rng(classes)
    dense = Dense(rng.normal(size=(classes, 16)), rng.normal(size=classes))
    network = Network((16,), (Node("fc", dense),))
    pixels = Preprocessing(divisor=1, mean=(0,), std=(1,), low=0, high=1)
    for batch in (1, 4):
        model = compile_network(
            network, rng.random((8, 16)), name="few", preprocessing=pixels, requirements=Requirements(batch=batch)
        )
        layout = model.plan.output
        assert (layout.index == ZERO).mean() >= 2 / (classes + 2) / 2
        x = rng.random((4, 16))
        assert np.abs(model(x) - network(x)).max() < 1e-10
        for _ in range(100):
            slots = layout.pack(rng.normal(size=layout.shape) * 10 ** rng.uniform(0, 4))
            answer = wrapped(slots, 1.0)
            assert np.allclose(answer, slots) or not read_marks(answer, layout, 1.0).in_range


def test_noise_is_what_is_no_score():
    rng = np.random.default_rng(0)
    layout = cyclic_pack((10,), 4096)
    noise = rng.normal(scale=0.01, size=(1, 4096, 2)).view(complex)[..., 0]
    marks = read_marks(layout.pack(rng.normal(size=10)) + noise, layout, 50.0)
    assert marks.in_range
    assert marks.noise == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("name", ["three", "whole"])
@pytest.mark.parametrize("factor", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_the_model_of_wrapping_is_what_encryption_does(running, name, factor):
    model = next(model for model in MODELS if model.manifest.name == name)
    codec = Codec(model.manifest)
    image = BRIGHT * factor
    slots = run(model.circuit, codec.pack([codec.read_image(image)]))[0]
    answer = wrapped(slots, model.manifest.decoded_capacity)
    expected = codec.unpack(answer.real[None], 1)[0]
    with quiet(running, name) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfRangeWarning)
        prediction = client.encrypt_and_predict(image)
    assert prediction.scores == pytest.approx(expected, abs=0.5)
    assert prediction.in_range == read_marks(answer, codec._output_layout, model.manifest.decoded_capacity).in_range


# The client ------------------------------------------------------------------------------------


def test_an_answer_out_of_range_is_marked_with_a_warning_at_the_users_line(running):
    with quiet(running, "three") as client:
        with pytest.warns(OutOfRangeWarning, match="^the answer is beyond what the model's parameters") as told:
            prediction = client.encrypt_and_predict(BRIGHT)
        assert (prediction.in_range, prediction.confidence) == (False, Confidence.NONE)
        assert (told[0].filename, len(told)) == (__file__, 1)
        fine = client.encrypt_and_predict(DARK)  # a warning would be an error here
    assert fine.in_range
    assert fine.confidence is not Confidence.NONE
    assert fine.scores == pytest.approx(FACTOR * cleartext_scores(DARK)[:3], abs=0.5)


def test_of_many_those_are_named_that_are_out_of_range_but_neither_score_nor_distance(running):
    with quiet(running, "three") as client:
        with pytest.warns(OutOfRangeWarning) as told:
            predictions = client.encrypt_and_predict_many([DARK, BRIGHT, DARK, BRIGHT])
        assert [prediction.in_range for prediction in predictions] == [True, False, True, False]
        text = str(told[0].message)
        assert "for 2 of 4 images (2, 4) is" in text
        assert (told[0].filename, len(told)) == (__file__, 1)
        with pytest.warns(OutOfRangeWarning) as told:
            client.encrypt_and_predict_many([DARK, BRIGHT, DARK, BRIGHT * 0.9])
    assert str(told[0].message) == text


def test_it_warns_every_time_unless_somebody_filters(running):
    with quiet(running, "three") as client, warnings.catch_warnings(record=True) as told:
        warnings.resetwarnings()
        warnings.simplefilter("always", OutOfRangeWarning, append=True)  # as the client's import leaves it
        for _ in range(2):
            client.encrypt_and_predict(BRIGHT)
        assert len(told) == 2
        warnings.simplefilter("ignore")
        client.encrypt_and_predict(BRIGHT)
        assert len(told) == 2


def test_all_images_of_a_batch_are_out_of_range_together(running):
    with quiet(running, "pair") as client, pytest.warns(OutOfRangeWarning, match=r"for 2 of 4 images \(3, 4\)"):
        predictions = client.encrypt_and_predict_many([DARK, DARK, DARK, BRIGHT])
    assert [prediction.in_range for prediction in predictions] == [True, True, False, False]
    assert [prediction.confidence is Confidence.NONE for prediction in predictions] == [False, False, True, True]


def test_an_error_when_asked_for(running):
    with quiet(running, "three", on_out_of_range="error") as client:
        with pytest.raises(OutOfRangeError, match=r"^the answer is beyond"):
            client.encrypt_and_predict(BRIGHT)
        with pytest.raises(OutOfRangeError, match=r"for 1 of 2 images \(2\)"):
            client.encrypt_and_predict_many([DARK, BRIGHT])
        assert client.encrypt_and_predict(DARK).in_range


def test_what_numpy_raises_where_a_user_asked_for_it_ends_no_call(running):
    """Scores far apart underflow in the softmax: an error there would tell the service, by requests not sent."""
    transport = Recorded(running.transport)
    with Client(URL, model="loud", transport=transport) as client, np.errstate(all="raise"):
        predictions = client.encrypt_and_predict_many([DARK, BRIGHT])
    assert [prediction.confidence for prediction in predictions] == [Confidence.HIGH, Confidence.HIGH]
    assert transport.count("/infer") == 2


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_another_choice_is_refused(kind):
    with pytest.raises(SettingError, match="on_out_of_range must be one of 'warn', 'error', not 'ignore'"):
        kind(URL, model="three", on_out_of_range="ignore")


def test_the_twin_does_the_same(running):
    async def use() -> None:
        transport = httpx.ASGITransport(running.app)
        async with AsyncClient(URL, model="three", transport=transport) as client:
            with pytest.warns(OutOfRangeWarning) as told:
                prediction = await client.encrypt_and_predict(BRIGHT)
            assert (prediction.in_range, told[0].filename) == (False, __file__)
            with pytest.warns(OutOfRangeWarning, match=r"for 1 of 2 images \(1\)") as told:
                await client.encrypt_and_predict_many([BRIGHT, DARK])
            assert told[0].filename == __file__
            assert (await client.encrypt_and_predict(DARK)).in_range
        async with AsyncClient(URL, model="three", transport=transport, on_out_of_range="error") as client:
            with pytest.raises(OutOfRangeError):
                await client.encrypt_and_predict(BRIGHT)

    running.portal.call(use)


# What leaves the machine -----------------------------------------------------------------------


def traffic(running: RunningService, images: list[np.ndarray], on_out_of_range: str) -> list[object]:
    """All that requests show but ciphertexts, ids and what is left of a time-out: headers, lengths and order, too."""
    transport = Recorded(running.transport)
    with Client(URL, model="three", transport=transport, on_out_of_range=on_out_of_range) as client:
        client.prepare()
        ids = client._session._ready.key_id
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfRangeWarning)
            one, many = client.encrypt_and_predict, client.encrypt_and_predict_many
            for call in (lambda: many(images), lambda: one(images[0])):
                try:
                    call()
                except OutOfRangeError:
                    assert on_out_of_range == "error"
    return [
        (
            request.method,
            str(request.url).replace(ids, "KEYS"),
            [name for name, value in request.headers.raw],
            {n: v for n, v in request.headers.items() if n != "heinfer-timeout"},
            len(request.content),
        )
        for request in transport.requests
    ]


@pytest.mark.parametrize("on_out_of_range", ["warn", "error"])
def test_no_request_tells_whether_an_answer_was_out_of_range(running, on_out_of_range):
    expected = traffic(running, [DARK] * 3, "warn")
    assert len(expected) == 7  # the last one when the client closes
    for images in ([BRIGHT] * 3, [BRIGHT, DARK, DARK], [DARK, DARK, BRIGHT]):
        assert traffic(running, images, on_out_of_range) == expected


# Confidence ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5, 0, 0], "medium"),  # a probability of 0.987
        ([6, 0, 0], "high"),
        ([3, 0, 0], "medium"),
        ([2, 0, 0], "low"),
        ([0.1, 0, 0], "low"),
        ([0.01, 0, 0], "none"),
        ([0, 0, 0], "none"),
        ([-1000, -1001], "none"),  # closer than the precision of their size
        ([-1000, -1010], "high"),
        ([1000, -1000], "high"),
        ([7], "none"),
    ],
)
def test_confidence_is_one_of_few_classes(scores, expected):
    scores = np.array(scores, dtype=float)
    assert confidence_of(scores, IN_RANGE) == expected
    assert confidence_of(scores, Marks(in_range=False, noise=1e-3)) == "none"
    assert confidence_of(scores, Marks(in_range=True, noise=1e4)) == "none"


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.floats(-3, 6), shift=st.floats(-50, 50))
def test_noise_changes_a_label_only_where_there_is_no_confidence(seed, size, shift):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=10) * 2**size + shift
    marks = Marks(in_range=True, noise=2.0 ** rng.uniform(-12, 0))
    noisy = scores + rng.normal(size=10) * marks.noise
    if confidence_of(noisy, marks) is not Confidence.NONE:
        assert noisy.argmax() == scores.argmax()


# Scores stay -----------------------------------------------------------------------------------


@pytest.fixture
def prediction() -> Prediction:
    return Prediction.of(
        {"scores": np.array([1.234567, 7.654321])},
        {"scores": "cat"},
        {"scores": IN_RANGE},
        model_version="1",
        manifest=64 * "0",
        client_seconds=0.5,
        server_seconds=0.25,
        upload_bytes=10,
        download_bytes=20,
        images=1,
    )


def test_scores_are_there_for_who_asks(prediction):
    assert prediction.scores.tolist() == [1.234567, 7.654321]


def test_nothing_that_is_made_of_a_prediction_holds_scores(prediction, caplog):
    with caplog.at_level(logging.INFO):
        logging.getLogger("x").info("%s %r", prediction, prediction)
        logging.getLogger("x").info("%s", [prediction], extra={"prediction": prediction, "all": vars(prediction)})
    made = [
        repr(prediction),
        str(prediction),
        f"{prediction}",
        caplog.text,
        repr(vars(prediction)),
        json.dumps(vars(prediction)),
        json.dumps(dataclasses.asdict(prediction)),
        repr(dataclasses.astuple(prediction)),
        pickle.dumps(prediction, protocol=0).decode("latin-1"),
        repr(copy.copy(prediction)),
        repr(prediction.__getstate__()),
    ]
    for text in made:
        assert "cat" in text
        assert "in_range" in text or "True" in text or "I01" in text
        assert "1.23" not in text
        assert "7.65" not in text
    packed = pickle.dumps(prediction)
    assert prediction.scores.tobytes() not in packed
    assert all(score.tobytes()[::-1] not in packed for score in prediction.scores)  # pickle's floats are big endian


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda p: pickle.loads(pickle.dumps(p)),
        lambda p: dataclasses.replace(p, label="dog"),
    ],
)
def test_a_copy_has_no_scores_and_says_so(prediction, copied):
    other = copied(prediction)
    assert (other.confidence, other.in_range, other.images) == ("high", True, 1)
    with pytest.raises(MissingScoresError, match="take them of the prediction that the client returned"):
        _ = other.scores
    assert not hasattr(other, "scores")
    assert prediction.scores.size == 2


# The command line ------------------------------------------------------------------------------


def test_predict_says_in_words_what_is_out_of_range(tmp_path: Path):
    bundles.save(MODELS[1], tmp_path / "three.heinfer")
    for name, image in (("dark", DARK), ("bright", BRIGHT)):
        np.save(tmp_path / f"{name}.npy", image)
    names = [str(tmp_path / f"{name}.npy") for name in ("dark", "bright")]
    with local_server(tmp_path / "three.heinfer") as url:
        result = CliRunner().invoke(app, ["predict", url, *names, "--model", "three"], catch_exceptions=False)
        fine = CliRunner().invoke(app, ["predict", url, names[0], "--model", "three"], catch_exceptions=False)
    words = " ".join(result.stdout.split())
    assert (result.exit_code, result.stderr, fine.exit_code) == (0, "", 0)
    (line,) = (line for line in result.stdout.splitlines() if "bright.npy" in line)
    assert "out of range" in line
    assert "beyond what the model's parameters can represent" in words
    assert "out of range" not in fine.stdout

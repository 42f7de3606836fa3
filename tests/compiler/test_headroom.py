"""Headroom: scores beyond what calibration saw come back right, on every bundle that has bits to give."""

import numpy as np
import pytest
from encrypted import EncryptedRun
from hypothesis import given, settings
from random_networks import SEEDS
from small_model import NETWORK, PIXELS, SHAPE, small_model

from benchmarks.support.subject import Subject
from heinfer.circuit.builder import Builder
from heinfer.circuit.interpret import interpret
from heinfer.circuit.ir import Circuit
from heinfer.circuit.noise import predict_noise
from heinfer.circuit.statistics import MARGIN, observe
from heinfer.circuit.worst_case import worst_cases
from heinfer.ckks.seal import Ring
from heinfer.compiler.compile import compile_network
from heinfer.compiler.model import CompiledModel
from heinfer.compiler.report import report
from heinfer.compiler.scaling import recalibrate
from heinfer.errors import SettingError
from heinfer.formats import bundle
from heinfer.planner.requirements import Requirements
from heinfer.zoo import bundle_path
from heinfer_cli.comparison import cleartext_scores

y, x = np.indices((28, 28))
CHECKER = ((y // 2 + x // 2) % 2 * 255).astype(np.uint8)
"""Nothing like a digit: the scores of mnist-plain are fifteen times those of its calibration images."""


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    return small_model()


def test_an_image_like_none_of_calibration_is_classified_as_in_cleartext() -> None:
    plain = bundle.load(bundle_path("mnist-plain"))
    (expected,) = cleartext_scores(plain, [CHECKER])
    assert np.abs(expected).max() > 10 * report(plain).largest_score
    scores, _ = Subject(plain).classify(CHECKER)
    assert scores.argmax() == expected.argmax()
    assert np.abs(scores - expected).max() < 2**-9 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "bits"),
    [("mnist-plain", 5), ("mnist-ffconv", 3), ("lola-mnist", 4), ("lenet5-mnist", 1), ("cifar-accurate", 2)],
)
def test_what_ships_keeps_bits_free(name: str, bits: int) -> None:
    facts = report(bundle.load(bundle_path(name)))
    assert bits <= np.log2(facts.capacity / (MARGIN * facts.largest_score)) < bits + 0.75


def test_scores_far_beyond_calibration_come_back(model: CompiledModel) -> None:
    """The small network is linear in its last bias: the same circuit, shown larger values than it was made for."""
    dim = np.random.default_rng(1).random((32, *SHAPE)) / 8
    narrow = compile_network(NETWORK, dim, name="narrow", preprocessing=PIXELS)
    image = np.ones(SHAPE)
    expected = narrow(image[None])[0]
    assert np.abs(expected).max() > 2 * narrow.report.largest_score
    run = EncryptedRun(narrow, Ring.secure(narrow.plan.parameters))
    assert np.abs(run(image) - expected).max() < 2**-7 * np.abs(expected).max()


def test_recalibration_changes_scales_and_nothing_else(model: CompiledModel) -> None:
    inputs = np.random.default_rng(1).random((64, *SHAPE))
    assert bundle.to_bytes(recalibrate(model.bundle, inputs)) == bundle.to_bytes(model.bundle)
    wider = recalibrate(model.bundle, inputs, headroom=0)
    assert wider.manifest.output.scale > model.manifest.output.scale
    assert wider.manifest.keys == model.manifest.keys
    assert all(
        np.array_equal(a, b) for a, b in zip(wider.circuit.constants, model.bundle.circuit.constants, strict=True)
    )
    bundle.from_bytes(bundle.to_bytes(wider))


def test_a_batch_has_headroom_of_its_own() -> None:
    assert report(small_model(Requirements(batch=4)).bundle).capacity > 8 * report(small_model().bundle).largest_score


@pytest.mark.parametrize("headroom", [-1, 1.5, "2"])
def test_headroom_is_a_whole_number_of_bits(headroom: object) -> None:
    with pytest.raises(SettingError, match="headroom is a whole number of bits"):
        Requirements(headroom=headroom)  # type: ignore[arg-type]


def test_the_noise_of_layers_adds_up(model: CompiledModel) -> None:
    typed = model.bundle.typed
    statistics = observe(typed.circuit, model.plan.input.pack(np.random.default_rng(3).random((4, *SHAPE))), 1.0)
    (together,) = predict_noise(typed, statistics)
    alone = [predict_noise(typed, statistics, of_layer)[0] for of_layer in range(-1, len(typed.circuit.layers))]
    np.testing.assert_allclose(np.sum(alone, axis=0), together)
    assert min(float(noise.max()) for noise in alone[:2]) > 0


# The worst case ----------------------------------------------------------------------------------


def an_affine_layer_squared(rng: np.random.Generator) -> Circuit:
    builder = Builder(8)
    source = builder.input(0)
    terms = [builder.multiply_plain(builder.rotate(source, step), rng.normal(size=8)) for step in range(4)]
    total = terms[0]
    for term in terms[1:]:
        total = builder.add(total, term)
    return builder.finish((builder.square(builder.add_plain(total, rng.normal(size=8))),))


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_the_worst_case_of_an_affine_layer_and_its_squares_is_reached_and_never_passed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = an_affine_layer_squared(rng)
    low = rng.normal(size=8)
    high = low + rng.random(8)
    corners = np.where(np.indices((2,) * 8).reshape(8, -1).T, high, low)[:, None]
    found = worst_cases(circuit, [(low, high)])
    reached = [float(np.abs(value).max()) for _, _, value in interpret(circuit, corners)]
    np.testing.assert_allclose(found, reached, rtol=1e-12)


def test_no_image_passes_the_worst_case_that_a_report_states() -> None:
    facts = report(bundle.load(bundle_path("mnist-plain")))
    assert [layer.worst_case is None for layer in facts.layers] == [False, False, False, False, True]
    assert all(layer.worst_case is None or layer.worst_case >= layer.largest for layer in facts.layers)

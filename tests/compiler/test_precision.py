"""The predicted precision: what it says, what is refused for it, and what wider primes buy."""

import json

import numpy as np
import pytest
from encrypted import EncryptedRun
from small_model import NETWORK, PIXELS, SHAPE, small_model

from heinfer.circuit.precision import WORST_OF, Scores, sizes
from heinfer.ckks.seal import Ring
from heinfer.compiler.compile import compile_network
from heinfer.compiler.model import CompiledModel
from heinfer.errors import NoiseError, SettingError
from heinfer.layout.layout import Layout
from heinfer.layout.parts import TensorPart
from heinfer.planner.requirements import Requirements

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("is_classification", [False, True])
def test_the_worst_of_200_is_better_than_predicted_in_three_of_four_times(is_classification: bool) -> None:
    values, deviations = RNG.normal(size=(512, 10)), RNG.uniform(0.5, 2, 10) * 1e-3
    scores = Scores.of(
        values, Layout((10,), np.arange(16)[None] % 10), [(TensorPart("scores", (10,)), is_classification)]
    )
    predicted = scores.precision_bits(deviations)
    held = sizes(values, is_classification)
    better = 0
    for _ in range(400):
        chosen = held[RNG.integers(0, 512, WORST_OF)]
        errors = np.abs(RNG.normal(size=(WORST_OF, 10)) * deviations).max(axis=1)
        better += -np.log2((errors / chosen).max()) > predicted
    assert 0.67 < better / 400 < 0.83


def test_scores_near_nothing_count_as_a_quarter_of_the_usual_size() -> None:
    values = np.array([[4.0, -4.0], [0.0, 1e-9], [-4.0, 4.0]])
    np.testing.assert_array_equal(sizes(values, is_classification=True), [4, 1, 4])
    np.testing.assert_array_equal(sizes(values, is_classification=False), [4, 4, 4])


def test_without_noise_every_bit_is_right_and_of_nothing_none() -> None:
    layout = Layout((2,), np.arange(4)[None] % 2)
    only = [(TensorPart("scores", (2,)), True)]
    assert Scores.of(np.ones((3, 2)), layout, only).precision_bits(np.zeros(2)) == np.inf
    assert Scores.of(np.zeros((3, 2)), layout, only).precision_bits(np.ones(2)) == -np.inf


def test_every_output_is_judged_by_its_own_size() -> None:
    """Noise that is nothing beside a million changes labels that are told apart by less than one."""
    kinds = [(TensorPart("label", (2,)), True), (TensorPart("size", (1,), start=2), False)]
    values = np.random.default_rng(0).random((50, 3)) * [1, 1, 1e6]
    scores = Scores.of(values, Layout((3,), np.arange(16)[None] % 3), kinds)
    noise = np.ones(3)
    label, size = scores.outputs
    assert label.is_drowned(noise[:2])
    assert size.is_clear(noise[2:])
    assert scores.are_drowned(noise)
    assert not scores.are_clear(noise)
    assert scores.precision_bits(noise) < 0 < scores.precision_bits(np.array([0, 0, 1]))
    assert scores.bound_on_bits([np.ones(16)]) < 0
    alone = Scores.of(values[:, :2], Layout((2,), np.arange(16)[None] % 2), kinds[:1])
    assert scores.precision_bits(np.array([1, 1, 0])) == alone.precision_bits(np.ones(2))


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    return small_model()


def test_a_run_is_as_precise_as_predicted(model: CompiledModel) -> None:
    predicted = float(model.bundle.metadata["predicted precision"].removesuffix(" bits"))
    run, images = EncryptedRun(model, Ring.secure(model.plan.parameters)), RNG.random((40, *SHAPE))
    exact = model(images)
    scores = np.stack([run(image) for image in images])
    measured = -np.log2((np.abs(scores - exact).max(axis=1) / sizes(exact, is_classification=False)).max())
    assert predicted - 0.7 < measured < predicted + 2.5  # of 40 images the worst is a little better


def test_bits_by_layer_are_of_parts_that_add_up(model: CompiledModel) -> None:
    whole = float(model.bundle.metadata["predicted precision"].removesuffix(" bits"))
    layers = json.loads(model.bundle.metadata["predicted precision by layer"])
    facts = model.report
    assert facts.encryption_bits == layers["encryption"]
    assert [layer.precision_bits for layer in facts.layers] == [layers.get(layer.name) for layer in facts.layers]
    assert min(layers.values()) >= whole - 0.1
    assert sum(4.0**-bits for bits in layers.values()) == pytest.approx(4.0**-whole, rel=0.5)


def compiled(precision_bits: float) -> CompiledModel:
    images = np.random.default_rng(1).random((64, *SHAPE))
    required = Requirements(precision_bits=precision_bits)
    return compile_network(NETWORK, images, name="small", preprocessing=PIXELS, requirements=required)


def test_headroom_leaves_the_precision_that_is_asked_for() -> None:
    most = compiled(11).bundle.metadata["predicted precision"]
    assert float(most.removesuffix(" bits")) >= 11


def test_more_than_there_is_is_refused_with_what_there_is() -> None:
    with pytest.raises(NoiseError, match=r"bits of the scores of the worst of 200 images.*40 bits are asked for"):
        compiled(40)


@pytest.mark.parametrize("bits", [-1, float("inf"), float("nan")])
def test_bits_are_asked_for_in_numbers(bits: float) -> None:
    with pytest.raises(SettingError, match="precision is asked for in bits"):
        Requirements(precision_bits=bits)

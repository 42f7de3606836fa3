"""Several inputs and outputs, named features and numbers for each element, from compile() to the manifest."""

from io import StringIO
from typing import Any

import numpy as np
import pytest
import torch
from encrypted import EncryptedRun, precision_bits
from rich.console import Console
from torch import nn

import heinfer
from heinfer import Preprocessing, Requirements, compile_network
from heinfer.ckks.seal import Ring
from heinfer.compiler.report import report
from heinfer.compiler.scaling import recalibrate
from heinfer.errors import CompileError, ShapeError
from heinfer.network.ir import Network, Node
from heinfer.network.operators import Dense
from heinfer_cli.report_table import print_report
from heinfer_client.codec import Codec

pytestmark = pytest.mark.filterwarnings("ignore::heinfer.errors.NoiseWarning")
"""What is tested is not how precise these small networks are."""

RNG = np.random.default_rng(0)
IMAGE = Preprocessing(divisor=255, mean=(0.25,), std=(0.5,), low=-0.5, high=1.5)
RECORD = Preprocessing(
    divisor=1.0, mean=(50.0, 25.0, 0.0), std=(15.0, 5.0, 1.0), low=(-3.5, -3.0, -1.0), high=4.0, kind="values"
)

NETWORK = Network((7,), (Node("heads", Dense(RNG.normal(size=(6, 7)), RNG.normal(size=6))),))
OUTPUTS = {"class": (2,), "mask": (1, 2, 2)}


def calibration(count: int = 50) -> dict[str, Any]:
    low = np.array(RECORD.low)
    return {
        "image": RNG.uniform(-0.5, 1.5, (count, 1, 2, 2)),
        "record": low + RNG.uniform(0, 1, (count, 3)) * (4 - low),
    }


def arguments(**changes: Any) -> dict[str, Any]:
    return {
        "name": "parts",
        "preprocessing": {"image": IMAGE, "record": RECORD},
        "labels": {"class": ("well", "ill")},
        "outputs": OUTPUTS,
    } | changes


@pytest.mark.parametrize("batch", [1, 2])
def test_parts_are_named_in_the_manifest_and_taken_by_name(batch):
    model = compile_network(NETWORK, calibration(), **arguments(requirements=Requirements(batch=batch)))
    manifest = model.manifest
    assert (manifest.version, manifest.batch) == (4, batch)
    assert [(part.name, part.shape) for part in manifest.input_parts] == [("image", (1, 2, 2)), ("record", (3,))]
    assert [(part.name, part.shape) for part in manifest.output_parts] == [("class", (2,)), ("mask", (1, 2, 2))]
    assert [(out.kind, out.labels) for out in manifest.outputs] == [
        ("classification", ("well", "ill")),
        ("values", ()),
    ]
    given = calibration(4)
    expected = NETWORK(np.concatenate([x.reshape(4, -1) for x in given.values()], axis=1))
    assert np.allclose(model(given), expected)
    found = model.outputs(dict(reversed(given.items())))
    assert np.allclose(found["class"], expected[:, :2])
    assert np.allclose(found["mask"], expected[:, 2:].reshape(4, 1, 2, 2))
    assert model.simulate(given).warnings == ()
    with pytest.raises(ShapeError, match="names and shapes"):
        model({"image": given["image"]})


def test_a_report_bounds_each_input_by_its_own_range():
    model = compile_network(NETWORK, calibration(), **arguments())
    low = np.concatenate([np.full(4, -0.5), RECORD.low])
    high = np.concatenate([np.full(4, 1.5), np.full(3, 4.0)])
    dense = NETWORK.nodes[0].operator
    ends = np.stack([dense.weight * low, dense.weight * high])
    worst = np.maximum(ends.max(0).sum(1) + dense.bias, -(ends.min(0).sum(1) + dense.bias))
    decoded = worst / model.manifest.to_scores(np.ones(6))
    assert report(model.bundle).layers[-1].worst_case == pytest.approx(decoded.max())


def test_a_report_lists_what_goes_in_and_out():
    told = RECORD.model_copy(update={"features": ("age", "bmi", "sex")})
    model = compile_network(NETWORK, calibration(), **arguments(preprocessing={"image": IMAGE, "record": told}))
    facts = report(model.bundle)
    assert facts.inputs == ("image (1, 2, 2), image", "record (3,), values of named features")
    assert facts.outputs == ("class (2,), classification", "mask (1, 2, 2), values")
    console = Console(file=StringIO(), width=120)
    print_report(facts, console)
    said = console.file.getvalue()
    assert all(part in said for part in (*facts.inputs, *facts.outputs))


def test_recalibration_keeps_parts_alike():
    model = compile_network(NETWORK, calibration(), **arguments())
    whole = np.concatenate([x.reshape(len(x), -1) for x in calibration(20).values()], axis=1)
    manifest = recalibrate(model.bundle, whole / 2).manifest
    assert heinfer.Bundle(manifest, model.bundle.circuit, model.bundle.bounds).manifest.to_bytes()
    assert len({(part.scale, part.level) for part in manifest.inputs}) == 1
    assert len({(part.scale, part.range * 2.0**-part.exponent) for part in manifest.outputs}) == 1


def test_a_small_output_beside_a_large_one_keeps_its_bits() -> None:
    """They share ciphertexts and noise: each is as large as the other there, and has its own exponent."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(6, 7)) * np.array([1, 1, *[1e5] * 4])[:, None]
    network = Network((7,), (Node("dense", Dense(weight, weight[:, 0])),))
    model = compile_network(network, calibration(), **arguments())
    small, large = model.manifest.outputs
    assert 2.0 ** (large.exponent - small.exponent) == pytest.approx(1e5, rel=1)
    assert np.log2(model.manifest.capacity_of(large) / model.manifest.capacity_of(small)) > 15
    given = calibration(3)
    whole = np.concatenate([x.reshape(3, -1) for x in given.values()], axis=1)
    exact, run = network(whole), EncryptedRun(model, Ring.secure(model.plan.parameters))
    for x, expected in zip(whole, exact, strict=True):
        scores = model.manifest.to_scores(run(x))
        assert precision_bits(scores[:2], expected[:2]) > 8
        assert precision_bits(scores[2:], expected[2:]) > 8
    found = model.simulate_many(given)
    assert found.deviations[:2].max() < 1e-3 * found.deviations[2:].min()


def test_the_noise_of_an_answer_is_told_in_each_output_s_own_units() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 7)) * np.array([1, 1, *[1e5] * 4])[:, None]
    network = Network((7,), (Node("dense", Dense(weight, weight[:, 0])),))
    model = compile_network(network, calibration(), **arguments())
    codec, small, large = Codec(model.manifest), *model.manifest.outputs
    slots = np.random.default_rng(1).normal(size=(1, model.manifest.parameters.ring_degree // 2)) * 1e-3
    marks = codec.answer(slots.astype(np.complex128), 1).marks
    assert marks["class"].in_range
    assert marks["mask"].noise == 2.0 ** (large.exponent - small.exponent) * marks["class"].noise > 0


def test_a_module_that_takes_and_gives_concatenations_is_compiled_in_parts():
    torch.manual_seed(0)
    module = nn.Linear(7, 6)
    model = heinfer.compile(module, calibration(), **arguments())
    given = calibration(3)
    whole = torch.tensor(np.concatenate([x.reshape(3, -1) for x in given.values()], axis=1), dtype=torch.float32)
    assert np.allclose(model(given), module(whole).detach().numpy(), atol=1e-5)


def test_one_input_and_output_may_have_names_and_another_shape():
    told = arguments(preprocessing=RECORD, labels={}, outputs={"mask": (3, 2)})
    network = Network((3,), (Node("dense", Dense(np.eye(6)[:, :3], np.zeros(6))),))
    model = compile_network(network, {"record": calibration()["record"]}, **told)
    assert [(part.name, part.shape) for part in model.manifest.input_parts] == [("record", (3,))]
    assert [(part.name, part.shape) for part in model.manifest.output_parts] == [("mask", (3, 2))]
    assert model(np.ones((5, 3))).shape == (5, 3, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preprocessing": IMAGE}, "must be a mapping, such as {'image': .*there are 2 inputs"),
        ({"preprocessing": {"image": IMAGE}}, "preprocessing is of 'image', the calibration inputs are 'image', 'rec"),
        ({"preprocessing": {"image": IMAGE, "record": 3}}, "must be heinfer.formats.manifest.Preprocessing"),
        ({"preprocessing": {"image": IMAGE, "record": IMAGE}}, "'record' reach from .* declared input range"),
        ({"preprocessing": {"image": RECORD, "record": RECORD}}, "the inputs 'image': mean and std must have 1 entry"),
        ({"labels": ("well", "ill")}, "labels must be a mapping, such as {'class': .* the network has 2 outputs"),
        ({"labels": {"cls": ("well", "ill")}}, "labels of 'cls', the outputs are 'class', 'mask'"),
        ({"labels": {"class": ("well",)}}, "the output 'class' gives 2 scores: give as many labels or none, not 1"),
        ({"outputs": {"class": (2,), "mask": (5,)}}, "'class', 'mask' have 7 elements, and the network gives 6"),
        ({"outputs": {"class": (2,), "Mask": (4,)}}, "name of an output must be 1 to 32 of a-z"),
        ({"outputs": {"class": 2, "mask": (4,)}}, "shape of the output 'class' must be a tuple of integers above 0"),
        ({"outputs": ("class", "mask")}, "outputs must be a mapping of 1 to 16 names to shapes"),
        ({"outputs": None, "labels": {"class": ("well", "ill"), "mask": ()}}, "say which part of it each is"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(wrong, message):
    with pytest.raises(CompileError, match=message):
        compile_network(NETWORK, calibration(), **arguments(**wrong))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(record=c["record"][:-1]), "50 of 'image', 49 of 'record'"),
        (lambda c: c.update(record=[1.0]), "'record' are one array"),
        (lambda c: c.update(record=c["record"][:, 0]), "'record' have shape"),
        (lambda c: c["record"].__setitem__((7, 1), np.nan), r"1 of 50 calibration inputs 'record' .* calibration\[7\]"),
        (lambda c: c["record"].__setitem__((7, 1), -3.2), r"'record', element \[1\], reach from -3.2"),
        (lambda c: c.pop("record"), "the calibration inputs are 'image'"),
        (lambda c: c.update({"No Name": c.pop("record")}), "the name of an input must be"),
        (lambda c: c.clear(), "of 1 to 16 names can be given, not of 0"),
    ],
)
def test_calibration_that_does_not_go_together_is_refused(change, message):
    given = calibration()
    change(given)
    with pytest.raises(CompileError, match=message):
        compile_network(NETWORK, given, **arguments())


def test_all_that_is_wrong_is_said_at_once():
    wrong = arguments(name="My Model", labels={"class": ("well",)}, preprocessing={"image": IMAGE})
    with pytest.raises(CompileError, match=r"(?s)1.*My Model.*2.*give as many labels.*3.*preprocessing is of 'image'"):
        compile_network(NETWORK, calibration(), **wrong)


def test_a_feature_out_of_range_is_named():
    told = RECORD.model_copy(update={"features": ("age", "bmi", "sex")})
    given = calibration()
    given["record"][3, 2] = -1.5
    with pytest.raises(CompileError, match=r"'sex', reach from -1\.5"):
        compile_network(NETWORK, given, **arguments(preprocessing={"image": IMAGE, "record": told}))

"""Compiling whole networks, and running them encrypted on real SEAL at 128-bit parameters."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from encrypted import EncryptedRun, precision_bits
from torch import nn

import heinfer
from heinfer.circuit.counts import count_circuit
from heinfer.circuit.precision import LEAST_BITS
from heinfer.circuit.validate import validate
from heinfer.ckks.seal import Ring
from heinfer.compiler import compile as compiler
from heinfer.compiler.compile import compile_network
from heinfer.compiler.model import CompiledModel
from heinfer.costs.prediction import predict
from heinfer.costs.tables import cost_table
from heinfer.errors import CompileError, MissingKeyError, RangeError, ShapeError
from heinfer.formats import bundle as bundles
from heinfer.formats.manifest import Preprocessing
from heinfer.network.ir import Network, Node
from heinfer.network.operators import Convolution, Dense, Flatten, Polynomial
from heinfer.planner.requirements import Limits, Requirements

RANGE = Preprocessing(divisor=255, mean=(0.0,), std=(1.0,), low=0.0, high=1.0)


def small_network(seed: int = 0, zero_channel: bool = False) -> Network:
    """conv 1->2 3x3 s2, activation, dense: three levels, so N = 4096 does not carry it and 8192 does."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(2, 1, 3, 3))
    if zero_channel:
        weight[:] = 0
    return Network(
        (1, 12, 12),
        (
            Node("conv", Convolution(weight, rng.normal(size=2), (2, 2), (1, 1))),
            Node("act", Polynomial(np.array([0.3, 0.2]), np.array([0.5, -0.4]), np.array([0.1, 0.2]))),
            Node("flatten", Flatten()),
            Node("fc", Dense(rng.normal(size=(3, 72)) / 8, rng.normal(size=3))),
        ),
    )


def calibration(count: int = 16) -> np.ndarray:
    return np.random.default_rng(1).random((count, 1, 12, 12))


def compiled(network: Network, headroom: int | None = None) -> CompiledModel:
    requirements = Requirements(headroom=headroom)
    return compile_network(network, calibration(), name="small", preprocessing=RANGE, requirements=requirements)


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    return compiled(small_network())


@pytest.fixture(scope="module")
def encrypted(model: CompiledModel) -> EncryptedRun:
    return EncryptedRun(model, Ring.secure(model.plan.parameters))


def test_cleartext_circuit_equals_the_network(model: CompiledModel) -> None:
    x = np.random.default_rng(2).random((5, 1, 12, 12))
    assert np.abs(model(x) - small_network()(x)).max() < 1e-10


def test_encrypted_run_equals_cleartext_within_its_own_budget(model: CompiledModel, encrypted: EncryptedRun) -> None:
    for x in np.random.default_rng(3).random((3, 1, 12, 12)):
        expected = model.simulate(x[None])
        assert (np.abs(encrypted(x) - model(x[None])[0]) < 6 * model.plan.output.unpack(expected.deviation)).all()
        assert precision_bits(encrypted(x), model(x[None])[0]) > 8


def room_of_scores(model: CompiledModel) -> float:
    """Bits between the bound of the scores and half the modulus."""
    circuit, part = model.bundle.circuit, model.manifest.output
    bound = max(model.bundle.bounds[output] for output in circuit.outputs)
    primes = model.plan.parameters.primes_at(part.level)
    return float(np.log2(np.prod([float(p) for p in primes]) / 2 / bound / part.scale))


@pytest.mark.parametrize("headroom", [0, 3])
def test_scores_take_the_room_that_headroom_leaves_to_an_eighth_of_a_bit(headroom: int) -> None:
    model = compiled(small_network(), headroom)
    bits = np.log2(model.manifest.output.scale)
    assert bits * 8 == pytest.approx(round(bits * 8), abs=1e-6)
    assert 0 <= room_of_scores(model) - headroom < 0.125


def test_headroom_is_whole_bits_as_many_as_precision_allows(model: CompiledModel) -> None:
    most = int(room_of_scores(model))
    assert most >= 4
    assert room_of_scores(model) - most < 0.125
    assert predicted_bits(model) >= LEAST_BITS
    assert predicted_bits(compiled(small_network(), most + 3)) < predicted_bits(model) - 0.5


def predicted_bits(model: CompiledModel) -> float:
    return float(model.bundle.metadata["predicted precision"].removesuffix(" bits"))


def test_the_price_of_the_plan_is_the_time_of_its_circuit(model: CompiledModel) -> None:
    cost = cost_table(model.plan.parameters.ring_degree)
    assert model.plan.price(cost) == pytest.approx(
        sum(predict(model.bundle.circuit, model.bundle.typed.levels, cost)), rel=0.03
    )


def test_a_limit_on_keys_is_kept_by_composing_rotations(model: CompiledModel) -> None:
    most = model.report.key_bytes * 2 // 3
    fewer = compile_network(
        small_network(),
        calibration(),
        name="small",
        preprocessing=RANGE,
        requirements=Requirements(limits=Limits(key_bytes=most)),
    )
    assert fewer.report.key_bytes <= most
    assert fewer.report.key_count < model.report.key_count
    assert fewer.report.counts.rotations > model.report.counts.rotations
    x = np.random.default_rng(2).random((5, 1, 12, 12))
    assert np.abs(fewer(x) - small_network()(x)).max() < 1e-10
    with pytest.raises(CompileError, match=r"rotation keys are the fewest that were found; .* 1000 are allowed"):
        compile_network(
            small_network(),
            calibration(),
            name="small",
            preprocessing=RANGE,
            requirements=Requirements(limits=Limits(key_bytes=1000)),
        )


def test_counted_is_executed(model: CompiledModel, encrypted: EncryptedRun) -> None:
    encrypted(np.zeros((1, 12, 12)))
    planned = count_circuit(model.bundle.circuit)
    assert planned == model.report.counts
    assert encrypted.program.executed == replace(planned, rotations_hoisted=0)  # SEAL's interface cannot hoist


def test_noise_model_is_within_three_bits(model: CompiledModel, encrypted: EncryptedRun) -> None:
    images = np.random.default_rng(4).random((6, 1, 12, 12))
    errors = [np.abs(encrypted(x) - model(x[None])[0]) for x in images]
    measured = float(np.sqrt(np.mean(np.square(errors))))
    predicted = float(np.median(model.simulate(images).deviation[model.plan.output.index >= 0]))
    assert abs(np.log2(measured / predicted)) < 3


def test_missing_rotation_key_is_named_before_anything_runs(model: CompiledModel) -> None:
    run = EncryptedRun(model, Ring.secure(model.plan.parameters))
    step = model.manifest.keys.steps[0]
    run.evaluation.galois_keys = None
    with pytest.raises(MissingKeyError, match=f"rotation by {step}"):
        run.program.run([], run.evaluation)


def test_vanishing_weights_do_not_stop_a_run() -> None:
    """SEAL refuses to multiply by a plaintext that rounds to zero; the counts stay those of the structure."""
    vanished = compiled(small_network(zero_channel=True))
    assert vanished.report.counts == compiled(small_network()).report.counts
    run = EncryptedRun(vanished, Ring.secure(vanished.plan.parameters))
    x = calibration(1)
    assert np.abs(run(x[0]) - vanished(x)[0]).max() < 1e-2


def test_manifest_tells_nothing_of_the_weights() -> None:
    """Equal structure, range of the scores and headroom: byte-identical manifests, whatever the weights."""
    manifests, bits = set(), set()
    for seed in range(4):
        network = small_network(seed)
        last = network.nodes[-1]
        assert isinstance(last.operator, Dense)
        most = np.abs(network(calibration())).max() / 3.0
        scaled = Node(last.name, Dense(last.operator.weight / most, last.operator.bias / most))
        same_range = Network(network.input_shape, (*network.nodes[:-1], scaled))
        manifests.add(compiled(same_range, headroom=2).manifest.to_bytes())
        bits.add(np.log2(compiled(same_range).manifest.output.scale))
    assert len(manifests) == 1
    assert {b % 1 for b in bits} == {min(bits) % 1}  # what the noise of the weights decides is whole bits


def test_bundle_round_trip_keeps_what_it_computes(model: CompiledModel, tmp_path: object) -> None:
    again = bundles.from_bytes(bundles.to_bytes(model.bundle))
    assert again.manifest == model.manifest
    assert count_circuit(again.circuit) == count_circuit(model.bundle.circuit)
    x = calibration(2)
    assert np.array_equal(replace(model, bundle=again)(x), model(x))


def test_report_answers_before_anything_is_paid(model: CompiledModel) -> None:
    report = model.report
    assert report.parameters.log_qp <= (report.parameters.security_limit or 0)
    assert [layer.name for layer in report.layers] == ["conv", "act", "fc"]
    assert [layer.level for layer in report.layers] == [3, 2, 1]
    assert report.key_count == len(model.manifest.keys.steps) + 1
    assert report.key_bytes > 1_000_000 > report.upload_bytes > report.download_bytes > 0
    assert sum((layer.counts.rotations for layer in report.layers), 0) == report.counts.rotations
    assert report.milliseconds > 0


def test_overflow_is_refused_and_named(model: CompiledModel) -> None:
    bounds = [b * 2.0**30 for b in model.bundle.bounds]
    with pytest.raises(RangeError, match=r"fc: values up to .* at scale .* level 0"):
        validate(model.bundle.typed, [*model.bundle.bounds[:-1], bounds[-1]])


def test_values_beyond_their_bound_are_warned_of(model: CompiledModel) -> None:
    assert model.simulate(calibration(2)).warnings == ()
    assert "its declared bound is" in model.simulate(100 * calibration(2)).warnings[0]


def test_calibration_outside_the_declared_range_is_refused() -> None:
    with pytest.raises(CompileError, match="clients would clip them"):
        compile_network(small_network(), 2 * calibration(), name="small", preprocessing=RANGE)


def test_calibration_that_is_not_preprocessed_is_told_so() -> None:
    with pytest.raises(CompileError, match="must be preprocessed as Preprocessing says, clip"):
        compile_network(small_network(), np.full((2, 1, 12, 12), 255.0), name="small", preprocessing=RANGE)


def test_calibration_may_leave_the_range_by_what_float32_rounds() -> None:
    pixels = np.stack([np.zeros((1, 12, 12), np.uint8), np.full((1, 12, 12), 255, np.uint8)])
    normalised = (pixels / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081)
    low, high = (0 - 0.1307) / 0.3081, (1 - 0.1307) / 0.3081
    assert normalised.dtype == np.float32
    assert normalised.min() < low
    exact = Preprocessing(divisor=255, mean=(0.1307,), std=(0.3081,), low=low, high=high)
    assert compile_network(small_network(), normalised, name="small", preprocessing=exact).report.key_count
    with pytest.raises(CompileError, match=r"from -0\.424312\d+ to .* is -0\.424212918 to 2\.82148653: clients"):
        compile_network(small_network(), normalised.astype(float) - 1e-4, name="small", preprocessing=exact)


def test_calibration_of_another_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"shape \(batch, \*\(1, 12, 12\)\)"):
        compile_network(small_network(), np.zeros((3, 12, 12)), name="small", preprocessing=RANGE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_calibration_with_what_is_no_number_is_refused(value: float) -> None:
    broken = calibration()
    broken[[5, 9], 0, 3, 3] = value
    with pytest.raises(CompileError, match=r"2 of 16 calibration inputs hold NaN .* calibration\[5\]"):
        compile_network(small_network(), broken, name="small", preprocessing=RANGE)


@pytest.fixture
def no_planning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("planning began before the arguments were looked at")

    monkeypatch.setattr(compiler, "plan_circuit", fail)


RGB = Preprocessing(divisor=255, mean=(0.0,) * 3, std=(1.0,) * 3, low=0.0, high=1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": ("cat", "dog")}, "gives 3 scores: give as many labels or none, not 2"),
        ({"labels": ["cat", "dog", "fox"]}, r"labels must be a tuple of strings, such as \('cat', 'dog'\), not a list"),
        ({"labels": "cat"}, "labels must be a tuple of strings, .* not a str"),
        ({"labels": (0, 1, 2)}, "strings of at most 64 characters .*; 0 is none"),
        ({"labels": ("a", "b", "c" * 65)}, "strings of at most 64 characters"),
        ({"labels": ("a", "b", "\x1b[2J")}, "without control characters; '.x1b"),
        ({"name": "My Model"}, r"name must be 1 to 64 of a-z, .* not 'My Model'"),
        ({"name": "small\n"}, "name must be"),
        ({"name": None}, "name must be"),
        ({"model_version": 2}, "model_version must be a string .* not 2"),
        ({"metadata": {"epochs": 3}}, "metadata must be a mapping from strings to strings"),
        ({"requirements": Limits()}, "requirements must be heinfer.planner.requirements.Requirements, .* not a Limits"),
        ({"preprocessing": {"divisor": 255}}, r"must be heinfer.formats.manifest.Preprocessing\(.* not a dict"),
        ({"preprocessing": RGB}, r"one a channel \(1\) or one an element \(144\) of .* \(1, 12, 12\), not 3"),
    ],
)
def test_arguments_are_looked_at_before_planning(wrong: dict[str, Any], message: str, no_planning: None) -> None:
    with pytest.raises(CompileError, match=message):
        compile_network(small_network(), calibration(), **{"name": "small", "preprocessing": RANGE} | wrong)


def torch_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Flatten(), nn.Linear(50, 3))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (list(calibration()), "one array .* not a list: np.stack"),
        (calibration().tolist(), "one array .* not a list"),
        (torch.zeros((2, 1, 12, 12), requires_grad=True), r"x\.detach\(\)\.cpu\(\)\.numpy\(\)"),
        (np.array([["cat", "dog"]]), "cannot be read as an array of numbers"),
        (np.zeros(12), r"\(N, C, H, W\) if they are images, not \(12,\)"),
        (np.zeros((0, 1, 12, 12)), r"not \(0, 1, 12, 12\)"),
        (
            calibration()[:, 0],
            r"input\[1, 2, 12, 12\] .*; the calibration inputs have shape \(16, 12, 12\): .* \(N, C, H, W\)",
        ),
        (calibration().repeat(3, axis=1), r"input\[2, 3, 12, 12\] to have 1 channels.* have shape \(16, 3, 12, 12\)"),
    ],
)
def test_calibration_of_a_wrong_kind_is_refused(inputs: Any, message: str, no_planning: None) -> None:
    with pytest.raises(CompileError, match=message):
        heinfer.compile(torch_network(), inputs, name="small", preprocessing=RANGE)


def test_calibration_may_be_a_tensor() -> None:
    inputs = torch.rand((4, 1, 12, 12), generator=torch.Generator().manual_seed(0))
    assert heinfer.compile(torch_network(), inputs, name="small", preprocessing=RANGE).report.key_count  # type: ignore[arg-type]


def torch_script() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(torch_network(), torch.zeros(1, 1, 12, 12))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (torch_network().state_dict(), r"a state_dict.*: .* give the nn\.Module itself"),
        (torch_script(), r"TorchScript .* give the nn\.Module itself"),
        (nn.Sequential, r"the class Sequential.* give the nn\.Module itself"),
        ("clinic.pt", r"clinic\.pt cannot be read as ONNX"),
    ],
    ids=["state dict", "script", "class", "path"],
)
def test_what_is_no_module_is_refused(model: Any, message: str, no_planning: None) -> None:
    with pytest.raises(CompileError, match=message):
        heinfer.compile(model, calibration(), name="small", preprocessing=RANGE)


def test_a_range_that_no_manifest_can_say_is_a_compile_error() -> None:
    """Found only after planning: no scale of the inputs fits the modulus."""
    endless = Preprocessing(divisor=255, mean=(0.0,), std=(1.0,), low=-1e60, high=1e60)
    with pytest.raises(CompileError, match=r"fit no modulus: declare the range that inputs have$") as caught:
        compile_network(small_network(), calibration(), name="small", preprocessing=endless)
    assert "pydantic" not in str(caught.value)


def test_too_deep_a_network_says_so() -> None:
    act = Polynomial(np.array([0.3]), np.zeros(1), np.zeros(1))
    nodes = tuple(Node(f"act{i}", act) for i in range(40))
    with pytest.raises(CompileError, match=r"levels.*fewer layers"):
        compile_network(Network((1, 12, 12), nodes), calibration(), name="deep", preprocessing=RANGE)

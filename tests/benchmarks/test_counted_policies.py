"""The benchmarks that compare policies: counts of every network, the time of one, and the picture."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import outcomes
import pytest
from installed import INSTALLED
from PIL import Image
from small_model import PIXELS
from torch import nn
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.count import policies
from benchmarks.draw.policies import draw_policies
from benchmarks.measure import latency
from benchmarks.support import networks
from benchmarks.support.records import plan_record
from heinfer.baselines import planning
from heinfer.baselines.names import Policy
from heinfer.baselines.planning import planner_of
from heinfer.compiler import compile as compiler
from heinfer.nn import FFConv2d, PolyActivation
from heinfer.planner.requirements import NO_LIMITS, Objective
from heinfer.zoo.data import MNIST
from heinfer.zoo.reference import REQUIREMENTS
from heinfer.zoo.registry import Reference


def run(*arguments: str) -> int:
    return CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code


def small_module() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), PolyActivation(2), nn.Flatten(), nn.Linear(32, 3))


@pytest.fixture
def small(monkeypatch):
    """A network in the registry's place."""
    network = Reference("small", small_module, replace(MNIST, shape=(1, 8, 8)))
    monkeypatch.setattr(networks, "reference", lambda _name: network)


# Counts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", Policy)
def test_policies_counts_what_the_circuit_of_a_plan_does(small, policy):
    objective = policies.PRESCRIBED if policy.is_published else Objective.TIME.value
    record = policies._planned("small", policy, objective)
    model = compiler.compile(
        small_module(), np.full((1, 1, 8, 8), 0.5), name="small", preprocessing=PIXELS, planner=planner_of(policy)
    )
    facts = plan_record("policies", model.bundle)
    assert facts["policy"] == policy.value
    counts = facts.keys() - {"benchmark", "network", "policy", "backend", "threads", "machine", "date"}
    if policy.is_published:
        counts -= {"plaintexts"}
    assert {name: record[name] for name in counts} == {name: facts[name] for name in counts}
    assert record["keys"] == model.report.key_count
    assert record["predicted_milliseconds"] == pytest.approx(model.report.predicted["tenseal"], rel=0.03)
    assert record["sampled"] == "nothing"
    assert record["planning_peak_mb"] > 10


def test_policies_says_what_was_sampled(small, monkeypatch):
    counted = planning.count_policy
    monkeypatch.setattr(
        planning, "count_policy", lambda *which, requirements: counted(*which, requirements=requirements, sample=2)
    )
    record = policies._planned("small", Policy.LOLA, policies.PRESCRIBED)
    assert record["sampled"] == "3 2 of 3"  # of the last layer


def test_policies_has_a_record_for_every_network_policy_and_objective(tmp_path, monkeypatch):
    monkeypatch.setattr(policies, "_planned", outcomes.counted)
    out = tmp_path / "policies.json"
    assert run("policies", "--json", str(out), "--network", "mnist-ffconv", "--network", "lola-mnist") == 0
    records = json.loads(out.read_text())
    assert [(r["network"], r["policy"], r["objective"], r["rotations"]) for r in records] == [
        ("mnist-ffconv", "heinfer", "time", 12),
        ("mnist-ffconv", "heinfer", "key switches", 12),
        ("mnist-ffconv", "heinfer-unfactorized", "time", 12),
        ("mnist-ffconv", "heinfer-unfactorized", "key switches", 12),
        ("mnist-ffconv", "lola", "prescribed", 12),
        ("mnist-ffconv", "ffconv", "prescribed", 12),
        ("lola-mnist", "heinfer", "time", 10),
        ("lola-mnist", "heinfer", "key switches", 10),
        ("lola-mnist", "lola", "prescribed", 10),
        ("lola-mnist", "ffconv", "prescribed", 10),
    ]
    assert len({r["key_switches"] for r in records} - {os.getpid()}) == 10  # processes
    assert all(0.98 < r["accuracy"] < 1 for r in records)


@pytest.mark.parametrize(("outcome", "why"), [(outcomes.none_found, "too deep"), (outcomes.dies, "process .* died")])
def test_policies_goes_on_after_a_network_without_a_plan(tmp_path, monkeypatch, outcome, why):
    monkeypatch.setattr(policies, "_planned", outcome)
    out = tmp_path / "policies.json"
    assert run("policies", "--json", str(out), "--network", "lola-mnist") == 0
    failures = [record["failure"] for record in json.loads(out.read_text())]
    assert len(failures) == 4
    assert all(re.search(why, failure) for failure in failures)


# Time ----------------------------------------------------------------------------------------------


def digit_module() -> nn.Sequential:
    """Of MNIST's shape; a convolution to 4 x 4, and a pair that a policy may treat as two."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 7, stride=7), PolyActivation(2), FFConv2d(2, 4, 2, rank=1), nn.Flatten(), nn.Linear(36, 2)
    )


@pytest.mark.parametrize("policy", ["lola", "ffconv"])
def test_latency_of_a_policy_says_of_how_many_evaluations(policy, tmp_path, monkeypatch):
    network = Reference("digit", digit_module, MNIST)
    monkeypatch.setattr(networks, "reference", lambda _name: network)
    out = tmp_path / "latency.json"
    assert run("latency", "--json", str(out), "--network", "digit", "--policy", policy, "--evaluations", "1") == 0
    records = json.loads(out.read_text())
    assert {record["backend"] for record in records} == set(INSTALLED)
    for record in records:
        assert (record["policy"], record["weights"]) == (policy, "random, seed 0")
        assert (record["eval_seconds"]["n"], record["seal_rotation_seconds"]["n"]) == (1, 20)
        assert record["rotations"] >= 24  # two dot products over 4096 slots
        assert "http_overhead_seconds" not in record


def test_latency_of_a_policy_takes_a_trained_network(tmp_path, monkeypatch):
    asked = []

    def compile_trained(name, checkpoint, data_dir, requirements, planner):
        asked.append((name, checkpoint.name, requirements, planner.name))
        return networks.compile_on_digits(networks.random_module("mnist-ffconv"), "mnist-ffconv", REQUIREMENTS)

    monkeypatch.setattr(latency, "compile_reference", compile_trained)
    monkeypatch.setattr(latency, "_evaluated", lambda _model, number, _ways: [{"n": number}])
    for policy in ("lola", "heinfer-unfactorized"):
        options = ["--policy", policy, "--evaluations", "3", "--checkpoint", "a.safetensors"]
        assert run("latency", "--json", str(tmp_path / "x.json"), "--network", "mnist-plain", *options) == 0
        assert json.loads((tmp_path / "x.json").read_text()) == [{"n": 3, "weights": "trained"}]
    assert [planner for *_, planner in asked] == [Policy.LOLA, Policy.UNFACTORIZED]
    assert [requirements.limits for *_, requirements, _ in asked] == [NO_LIMITS, NO_LIMITS]
    assert {(name, file) for name, file, *_ in asked} == {("mnist-plain", "a.safetensors")}


# The picture ---------------------------------------------------------------------------------------


def record(network: str, policy: str, switches: int, milliseconds: float, **changes) -> dict:
    objective = "prescribed" if policy in ("lola", "ffconv") else "time"
    return {
        "network": network,
        "policy": policy,
        "objective": objective,
        "key_switches": switches,
        "predicted_milliseconds": milliseconds,
        "sampled": "nothing",
    } | changes


RECORDS = [
    record("one", "heinfer", 41, 190.0),
    record("one", "heinfer", 40, 195.0, objective="key switches"),
    record("one", "heinfer-unfactorized", 51, 225.0),
    record("one", "lola", 9537, 37558.0),
    record("one", "ffconv", 1934, 22416.0),
    record("two", "heinfer", 300, 9000.0),
    record("two", "lola", 96042, 404000.0, sampled="conv2 1024 of 7987"),
    {"network": "two", "policy": "ffconv", "objective": "prescribed", "failure": "too deep"},
]


def test_the_plot_of_policies_has_a_bar_for_every_policy_that_has_a_plan():
    figure = draw_policies(RECORDS)
    switches, seconds = ([text.get_text() for text in axes.texts] for axes in figure.axes)
    assert switches == ["9,537", "~96,042", "1,934", "51", "41", "300"]
    assert seconds == ["38", "~404", "22", "0.23", "0.19", "9"]
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "log"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["one", "two"]
    assert len(figure.legends[0].get_texts()) == len(Policy)


def test_it_is_drawn_of_the_file(tmp_path):
    (tmp_path / "policies.json").write_text(json.dumps(RECORDS))
    assert run("plots", "--results", str(tmp_path)) == 0
    with Image.open(tmp_path / "policies.png") as image:
        assert len(image.getcolors(1 << 24)) > 10

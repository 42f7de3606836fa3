"""Benchmarks forms and trained-accuracy on small networks: what is counted is what ran, and other records stay."""

import json

import numpy as np
import pytest
from installed import INSTALLED
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.count import forms
from benchmarks.draw.forms import draw_forms
from benchmarks.draw.layouts import draw_layouts
from benchmarks.draw.published import PUBLISHED, draw_published
from benchmarks.support import networks
from benchmarks.support.networks import accuracies, random_network, scaled
from heinfer.baselines.names import Policy
from heinfer.baselines.planning import plan_policy
from heinfer.zoo.checkpoint import Metadata, save_network
from heinfer.zoo.data import Images
from heinfer.zoo.digits import digits
from heinfer.zoo.registry import reference


def run(*arguments: str) -> None:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.skipif("native" not in INSTALLED, reason="heinfer-native is not installed")
def test_a_case_that_runs_and_one_that_is_counted(tmp_path, monkeypatch):
    cases = (
        forms.Case("lola-mnist", Policy.HEINFER),
        forms.Case("lola-mnist", Policy.LOLA, runs=False),
        forms.Case("mnist-plain", Policy.HEINFER),
    )
    monkeypatch.setattr(forms, "CASES", cases)
    monkeypatch.setattr(forms, "EVALUATIONS", 1)
    out = tmp_path / "forms.json"
    kept = {"network": "mnist-plain", "policy": "heinfer", "ring": "smallest"}
    out.write_text(json.dumps([kept]))
    monkeypatch.setattr(forms, "ProcessPoolExecutor", InThisProcess)
    run("forms", "--json", str(out), "--network", "lola-mnist", "--threads", "1")
    searched, lola, other = json.loads(out.read_text())
    assert (searched["rotations"], searched["hma"], searched["ring_degree"]) == (46, 160, 8192)
    assert (lola["rotations"], lola["levels"], lola["sampled"]) == (400, 6, "nothing")
    assert searched["accuracy"] == lola["accuracy"] > 0.98
    assert searched["native_seconds"]["n"] == 1
    assert searched["tenseal_seconds"] > 0
    assert "native_seconds" not in lola
    assert lola["predicted_ratio_to_seal_rotation"] > 2 * searched["predicted_ratio_to_seal_rotation"]
    assert other == kept


class InThisProcess:
    """In a pool's place."""

    def __init__(self, *_, **__): ...

    def __enter__(self):
        return self

    def __exit__(self, *_): ...

    def submit(self, function, *arguments):
        self._done = function(*arguments)
        return self

    def result(self):
        return self._done


@pytest.mark.skipif("native" not in INSTALLED, reason="heinfer-native is not installed")
def test_a_network_as_lola_lays_it_out_is_executed_whole():
    plan = plan_policy(random_network("lola-mnist"), Policy.LOLA)
    (slots,) = plan.input.pack(np.random.default_rng(0).random((1, 1, 28, 28)))
    record = forms.executed(plan, scaled(plan), slots, threads=1, memory=1e7)
    assert (record["rotations"], record["key_switches"]) == (400, 402)
    assert record["constant_bytes"] < 1.1e7  # scalars are kept whatever the limit
    assert record["precision_bits"] > 6


def test_checkpoints_are_evaluated_and_known_to_others(tmp_path, monkeypatch):
    name, shipped = "lola-mnist-falcon@8", digits()
    monkeypatch.setattr(networks, "mnist_test", lambda _: Images(shipped.images, shipped.labels))
    recipe = str(reference(name).recipe)
    for held_out in (None, 0.75):
        about = Metadata(name, 0, 1, 20, recipe, held_out, 0.5, 1.0, {}, {}, "cuda")
        save_network(tmp_path / str(held_out) / f"{name}.safetensors", reference(name).build(), about)
    out = tmp_path / "trained.json"
    run("trained-accuracy", str(tmp_path), "--json", str(out))
    records = json.loads(out.read_text())
    assert [r["command"] for r in records] == [
        f"heinfer train {name} --seed 0 --epochs 1 --hold-out --device cuda",
        f"heinfer train {name} --seed 0 --epochs 1 --device cuda",
    ]
    known = accuracies(name, out)
    assert known == {"accuracy": records[1]["test_accuracy"], "held_out_accuracy": 0.75, "recipe": "own"}
    assert accuracies("lola-cifar", out) == {}


RECORD = {
    "data": "cifar-10",
    "network": "lola-cifar",
    "policy": "lola",
    "ring": "smallest",
    "accuracy": 0.77,
    "rotations": 100,
    "predicted_milliseconds": 4000.0,
}


def texts(axes):
    return [t.get_text() for t in axes.texts]


def test_the_picture_of_the_forms_has_a_point_for_every_form():
    brief = RECORD | {"network": "lola-cifar-ffconv@8", "policy": "ffconv", "recipe": "brief", "accuracy": 0.7}
    other = RECORD | {"network": "lola-cifar-falcon@4", "policy": "falcon"}
    seconds, rotations = draw_forms([RECORD, brief, other, RECORD | {"ring": "16384"}]).axes
    assert texts(seconds) == texts(rotations) == ["whole", "k=4", "r=8"]


def test_published_points_say_their_hardware_and_how_well_they_are_known(tmp_path):
    record = {"network": "cifar-fast", "backend": "native", "threads": 2, "eval_seconds": {"median": 0.2}}
    (tmp_path / "latency-cifar-fast-native.json").write_text(json.dumps([record]))
    run("plots", "--results", str(tmp_path))
    assert (tmp_path / "published.png").stat().st_size > 10_000
    figure = draw_published([record | {"data": "cifar-10", "accuracy": 0.78}])
    shown = [text.partition("  ")[2] for axes in figure.axes for text in texts(axes) if "  " in text]
    assert len(shown) == len(PUBLISHED) + 1
    assert "cifar-fast: 78.00 %, 0.2 s; native, 2 threads" in shown
    for point in PUBLISHED:
        assert f"{point.system}: {point.accuracy:g} %, {point.seconds:g} s; {point.hardware}; {point.known}" in shown


def test_layouts_are_drawn(tmp_path):
    run("layouts", "--out", str(tmp_path / "layouts.png"))
    titles = [axes.get_title(loc="left") for axes in draw_layouts().axes]
    assert [title.partition(":")[0] for title in titles[:3]] == ["DensePack", "ConvPack", "ConvPack of an input"]
    assert (tmp_path / "layouts.png").stat().st_size > 10_000

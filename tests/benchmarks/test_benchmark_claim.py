"""Benchmarks claim and trained on small networks: what they count is what ran, and records of other networks stay."""

import json

import pytest
from installed import INSTALLED
from typer.testing import CliRunner

from benchmarks import claim, plots, trained
from benchmarks.__main__ import app
from benchmarks.published import PUBLISHED
from heinfer.baselines.names import Policy
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
        claim.Case("lola-mnist", Policy.HEINFER),
        claim.Case("lola-mnist", Policy.LOLA, runs=False),
        claim.Case("mnist-plain", Policy.HEINFER),
    )
    monkeypatch.setattr(claim, "CASES", cases)
    monkeypatch.setattr(claim, "EVALUATIONS", 1)
    out = tmp_path / "claim.json"
    kept = {"network": "mnist-plain", "policy": "heinfer", "ring": "smallest"}
    out.write_text(json.dumps([kept]))
    monkeypatch.setattr(claim, "ProcessPoolExecutor", InThisProcess)
    run("claim", "--json", str(out), "--network", "lola-mnist", "--threads", "1")
    searched, lola, other = json.loads(out.read_text())
    assert (searched["rotations"], searched["hma"], searched["ring_degree"]) == (46, 160, 8192)
    assert (lola["rotations"], lola["levels"], lola["sampled"]) == (400, 6, "nothing")
    assert searched["accuracy"] == lola["accuracy"] > 0.98
    assert searched["native_seconds"]["n"] == 1
    assert searched["tenseal_seconds"] > 0
    assert "native_seconds" not in lola
    assert lola["predicted_rotations"] > 2 * searched["predicted_rotations"]
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


def test_checkpoints_are_evaluated_and_known_to_the_claim(tmp_path, monkeypatch):
    name, shipped = "lola-mnist-falcon@8", digits()
    monkeypatch.setattr(trained, "mnist_test", lambda _: Images(shipped.images, shipped.labels))
    recipe = str(reference(name).recipe)
    for held_out in (None, 0.75):
        about = Metadata(name, 0, 1, 20, recipe, held_out, 0.5, 1.0, {}, {}, "cuda")
        save_network(tmp_path / str(held_out) / f"{name}.safetensors", reference(name).build(), about)
    out = tmp_path / "trained.json"
    run("trained", str(tmp_path), "--json", str(out))
    records = json.loads(out.read_text())
    assert [r["command"] for r in records] == [
        f"heinfer train {name} --seed 0 --epochs 1 --hold-out --device cuda",
        f"heinfer train {name} --seed 0 --epochs 1 --device cuda",
    ]
    known = trained.accuracies(name, out)
    assert known == {"accuracy": records[1]["test_accuracy"], "held_out_accuracy": 0.75, "recipe": "own"}
    assert trained.accuracies("lola-cifar", out) == {}


RECORD = {
    "data": "cifar-10",
    "network": "lola-cifar",
    "policy": "lola",
    "ring": "smallest",
    "accuracy": 0.77,
    "rotations": 100,
    "predicted_seconds": 4.0,
}


def texts(axes):
    return [t.get_text() for t in axes.texts]


def test_the_picture_of_the_claim_has_a_point_for_every_form():
    brief = RECORD | {"network": "lola-cifar-ffconv@8", "policy": "ffconv", "recipe": "brief", "accuracy": 0.7}
    other = RECORD | {"network": "lola-cifar-falcon@4", "policy": "falcon"}
    seconds, rotations = plots.draw_claim([RECORD, brief, other, RECORD | {"ring": "16384"}]).axes
    assert texts(seconds) == texts(rotations) == ["whole", "block 4", "rank 8"]


def test_published_points_say_their_hardware_and_how_well_they_are_known(tmp_path):
    record = {"network": "cifar-fast", "backend": "native", "threads": 2, "eval_seconds": {"median": 0.2}}
    (tmp_path / "latency-cifar-fast-native.json").write_text(json.dumps([record]))
    run("plots", "--results", str(tmp_path))
    assert (tmp_path / "published.png").stat().st_size > 10_000
    figure = plots.draw_published([record | {"data": "cifar-10", "accuracy": 0.78}])
    shown = [text.partition("  ")[2] for axes in figure.axes for text in texts(axes) if "  " in text]
    assert len(shown) == len(PUBLISHED) + 1
    assert "cifar-fast: 78.00 %, 0.2 s; native, 2 threads" in shown
    for point in PUBLISHED:
        assert f"{point.system}: {point.accuracy:g} %, {point.seconds:g} s; {point.hardware}; {point.known}" in shown


def test_layouts_are_drawn(tmp_path):
    run("layouts", "--out", str(tmp_path / "layouts.png"))
    titles = [axes.get_title(loc="left") for axes in plots.draw_layouts().axes]
    assert [title.partition(":")[0] for title in titles[:3]] == ["DensePack", "ConvPack", "ConvPack of an input"]
    assert (tmp_path / "layouts.png").stat().st_size > 10_000

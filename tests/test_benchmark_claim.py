"""Benchmarks claim and trained on small networks: what they count is what ran, and records of other networks stay."""

import json

import pytest
from installed import INSTALLED
from typer.testing import CliRunner

from benchmarks import claim, trained
from benchmarks.__main__ import app
from heinfer.planner.policies.names import Policy
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

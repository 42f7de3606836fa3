"""The benchmarks on a handful of images: what they write, and that they go on where they were."""

import json

import pytest
from tiny_model import tiny_bundle
from typer.testing import CliRunner

from benchmarks import accuracy, latency
from benchmarks.__main__ import app
from benchmarks.records import plan_record, seconds_of
from benchmarks.resumable import ImageResult, ResultsFile
from heinfer import zoo
from heinfer.zoo.data import Digits

COMMON = {
    "benchmark",
    "network",
    "policy",
    "backend",
    "threads",
    "ring_degree",
    "log_qp",
    "levels",
    "rotations",
    "rotations_hoisted",
    "key_switches",
    "hma",
    "ct_ct_mults",
    "plaintexts",
    "key_bytes",
    "upload_bytes",
    "download_bytes",
}
TIMES = {"eval_seconds"}


def run(*arguments: str) -> int:
    return CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code


@pytest.fixture
def twenty(monkeypatch):
    shipped = zoo.digits()
    monkeypatch.setattr(accuracy, "mnist_test", lambda: Digits(shipped.images, shipped.labels))


def results(path) -> list[int]:
    return [json.loads(line)["image"] for line in path.read_text().splitlines()[1:]]


def test_accuracy_agrees_on_a_handful_and_goes_on_where_it_was(tmp_path, twenty, monkeypatch):
    out = tmp_path / "accuracy.json"
    partial = tmp_path / "accuracy.json.partial"
    real = accuracy.Subject.classify
    classified = []

    def interrupted(self, image):
        if len(classified) == 2:
            raise KeyboardInterrupt
        classified.append(image)
        return real(self, image)

    monkeypatch.setattr(accuracy.Subject, "classify", interrupted)
    run("accuracy", "--json", str(out), "--images", "3")
    assert results(partial) == [0, 1]
    assert not out.exists()

    monkeypatch.setattr(accuracy.Subject, "classify", real)
    assert run("accuracy", "--json", str(out), "--images", "3") == 0
    assert not partial.exists()
    (record,) = json.loads(out.read_text())
    assert record.keys() >= COMMON | TIMES
    assert record["agreements"] + record["exempted"] == record["images"] == 3
    assert record["eval_seconds"]["n"] == 3
    assert record["precision_bits_min"] >= 8
    assert abs(record["precision_bits_min"] - record["precision_bits_predicted"]) < 3
    assert record["accuracy"] >= 0.9


def test_accuracy_fails_when_an_image_is_classified_otherwise(tmp_path, twenty, monkeypatch):
    real = accuracy.Subject.classify
    monkeypatch.setattr(accuracy.Subject, "classify", lambda *a: (-real(*a)[0], 0.1))
    assert run("accuracy", "--json", str(tmp_path / "a.json"), "--images", "1") == 1
    assert json.loads((tmp_path / "a.json").read_text())[0]["agreements"] == 0


def test_latency_is_a_ratio_within_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "EVALUATIONS", 2)
    monkeypatch.setattr(latency, "REQUESTS", 2)
    assert run("latency", "--json", str(tmp_path / "latency.json")) == 0
    (record,) = json.loads((tmp_path / "latency.json").read_text())
    assert record.keys() >= COMMON | TIMES | {"seal_rotation_seconds", "ratio_to_seal_rotation"}
    assert record["seal_rotation_seconds"]["n"] == 4
    ratio = record["eval_seconds"]["median"] / record["seal_rotation_seconds"]["median"]
    assert record["ratio_to_seal_rotation"] == pytest.approx(ratio, abs=0.01)
    assert record["ratio_to_seal_rotation"] < record["key_switches"] + record["hma"]


def test_a_record_has_the_common_keys_and_counts_of_the_circuit():
    record = plan_record("name", tiny_bundle())
    assert record.keys() == COMMON
    assert (record["rotations"], record["key_switches"], record["hma"], record["ct_ct_mults"]) == (2, 3, 1, 1)


def test_times_are_summarised():
    assert seconds_of([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "n": 3}


# Results that outlive an interruption --------------------------------------------------------------


def result(image: int) -> ImageResult:
    return ImageResult(image, True, False, 11.5, 0.25)


def test_results_survive(tmp_path):
    file = ResultsFile(tmp_path / "results", "a model")
    file.add(result(0))
    file.add(result(1))
    assert ResultsFile(tmp_path / "results", "a model").done == {0: result(0), 1: result(1)}


def test_a_line_cut_off_by_an_interruption_is_done_again(tmp_path):
    path = tmp_path / "results"
    file = ResultsFile(path, "a model")
    file.add(result(0))
    file.add(result(1))
    path.write_text(path.read_text()[:-10])
    file = ResultsFile(path, "a model")
    assert file.done == {0: result(0)}
    file.add(result(1))
    assert ResultsFile(path, "a model").done == {0: result(0), 1: result(1)}


@pytest.mark.parametrize("text", ["", "garbage", '"another model"\n', "\xff"])
def test_results_of_something_else_are_dropped(tmp_path, text):
    path = tmp_path / "results"
    path.write_text(text)
    assert ResultsFile(path, "a model").done == {}

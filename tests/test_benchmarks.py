"""The benchmarks on a handful of images: what they write, and that they go on where they were."""

import json

import pytest
from PIL import Image
from tiny_model import tiny_bundle
from typer.testing import CliRunner

from benchmarks import accuracy, latency, plots, prediction
from benchmarks.__main__ import app
from benchmarks.records import plan_record, seconds_of
from benchmarks.resumable import ImageResult, ResultsFile
from heinfer import zoo
from heinfer.formats import bundle
from heinfer.planner.cost import OPERATIONS, CostTable, cost_table
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


def test_prediction_compares_every_shipped_model_with_two_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "SWEEPS", 1)
    monkeypatch.setattr(prediction, "EVALUATIONS", 2)
    monkeypatch.setattr(prediction, "BUNDLES", tmp_path)
    for name in ("one", "two"):
        bundle.save(tiny_bundle(name), tmp_path / f"{name}.heinfer")
    assert run("prediction", "--json", str(tmp_path / "prediction.json")) == 0
    records = json.loads((tmp_path / "prediction.json").read_text())
    assert [record["network"] for record in records] == ["one", "two"]
    for record in records:
        assert record.keys() >= COMMON | TIMES | {"eval_cpu_seconds", "machine", "date", "shipped_machine"}
        assert (record["eval_cpu_seconds"]["n"], record["seal_rotation_cpu_seconds"]["n"]) == (2, 4)
        measured = record["eval_cpu_seconds"]["median"]
        for table in ("calibrated", "shipped"):
            spent = record[f"{table}_milliseconds"]
            assert spent.keys() >= {"rotate", "relinearize", "multiply_plain", "multiply", "add", "rescale"}
            assert record[f"{table}_seconds"] == pytest.approx(sum(spent.values()) / 1000, abs=1e-3)
            assert record[f"{table}_over_measured"] == pytest.approx(
                record[f"{table}_seconds"] / measured, rel=0.1, abs=1e-3
            )


def test_prediction_uses_the_table_of_the_same_run_and_the_shipped_one(tmp_path, monkeypatch):
    made_up = CostTable("tenseal", 4096, dict.fromkeys(OPERATIONS, (1.0, 2.0, 3.0)), "a machine", "a date")
    monkeypatch.setattr(prediction.Calibration, "table", lambda _: made_up)
    monkeypatch.setattr(prediction, "SWEEPS", 1)
    monkeypatch.setattr(prediction, "EVALUATIONS", 1)
    monkeypatch.setattr(prediction, "BUNDLES", tmp_path)
    bundle.save(tiny_bundle(), tmp_path / "tiny.heinfer")
    run("prediction", "--json", str(tmp_path / "prediction.json"))
    (record,) = json.loads((tmp_path / "prediction.json").read_text())
    assert record["calibrated_milliseconds"]["rotate"] == 2 * 2.0  # at level 1
    assert record["calibrated_milliseconds"]["relinearize"] == 3.0  # at level 2
    shipped = cost_table(4096)
    assert record["shipped_milliseconds"]["rotate"] == pytest.approx(2 * shipped("rotation", 1), abs=0.01)
    assert record["shipped_machine"] == shipped.machine


# Plots ---------------------------------------------------------------------------------------------

PREDICTION = {
    "network": "net",
    "ring_degree": 8192,
    "machine": "one",
    "shipped_machine": "another",
    "eval_cpu_seconds": {"median": 0.2, "min": 0.19, "max": 0.25, "n": 12},
    "calibrated_milliseconds": {"rotate": 120.0, "multiply_plain": 50.0, "input": 0.0, "multiply": 20.0},
    "calibrated_over_measured": 0.95,
    "shipped_milliseconds": {"rotate": 200.0, "add": 100.0},
    "shipped_over_measured": 1.5,
    "shipped_over_measured_in_rotations": 1.02,
}


def test_plots_are_drawn_of_the_results_that_there_are(tmp_path):
    assert run("plots", "--results", str(tmp_path)) == 0
    assert not list(tmp_path.iterdir())
    (tmp_path / "prediction.json").write_text(json.dumps([PREDICTION, PREDICTION]))
    assert run("plots", "--results", str(tmp_path)) == 0
    picture = (tmp_path / "prediction.png").read_bytes()
    run("plots", "--results", str(tmp_path))
    assert (tmp_path / "prediction.png").read_bytes() == picture  # nothing of the moment is in it
    with Image.open(tmp_path / "prediction.png") as image:
        assert len(image.getcolors(1 << 24)) > 10


def test_the_plot_of_predictions_has_bars_as_long_as_the_records_say():
    figure = plots.draw_prediction([PREDICTION, PREDICTION | {"network": "other"}])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["net, N = 8192", "other, N = 8192"]
    bars = [bar for container in figure.axes[0].containers for bar in getattr(container, "patches", ())]
    ends = {row: max(bar.get_x() + bar.get_width() for bar in bars if round(bar.get_y()) == row) for row in range(3)}
    assert ends == pytest.approx({0: 200, 1: 190, 2: 300})
    notes = [text.get_text() for text in figure.axes[0].texts]
    assert notes == ["200 ms", "190 ms, 0.95 of measured", "300 ms, 1.50 of measured; 1.02 counted in rotations"]
    assert "another machine" in figure.axes[0].get_yticklabels()[2].get_text()
    assert len(figure.legends[0].get_texts()) == 6


# Records -------------------------------------------------------------------------------------------


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

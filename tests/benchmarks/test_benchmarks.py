"""The benchmarks on a handful of images: what they write, and that they go on where they were."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from installed import INSTALLED
from PIL import Image
from small_model import small_model
from tiny_model import overflowing_bundle, tiny_bundle
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.count import sweep
from benchmarks.draw.prediction import draw_prediction
from benchmarks.draw.sweep import draw_sweep
from benchmarks.measure import (
    accuracy,
    latency,
    lower_bound,
    plan_by_backend,
    prediction,
    primitives,
    startup,
)
from benchmarks.measure import range as beyond
from benchmarks.support import networks
from benchmarks.support.pictures import FAMILIES, pictures
from benchmarks.support.records import plan_record, spread
from benchmarks.support.resumable import ImageResult, ResultsFile
from heinfer import zoo
from heinfer.backends.native import NativePlan, native_plan
from heinfer.costs.tables import OPERATIONS, CostTable, cost_table
from heinfer.formats import bundle
from heinfer.planner.requirements import NO_LIMITS
from heinfer.zoo import digits
from heinfer.zoo.data import Images
from heinfer.zoo.measure import evaluate
from heinfer.zoo.registry import reference
from heinfer_client.marks import Marks

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
    "machine",
    "date",
}
TIMES = {"eval_seconds"}


def run(*arguments: str) -> int:
    return CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code


@pytest.fixture
def twenty(monkeypatch):
    shipped = zoo.digits()
    monkeypatch.setattr(networks, "mnist_test", lambda _: Images(shipped.images, shipped.labels))


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
    monkeypatch.setattr(latency, "REQUESTS", 2)
    assert run("latency", "--json", str(tmp_path / "latency.json"), "--evaluations", "2") == 0
    records = json.loads((tmp_path / "latency.json").read_text())
    native = [("native", 1), ("native", 2)] if "native" in INSTALLED else []
    assert [(record["backend"], record["threads"]) for record in records] == [*native, ("tenseal", 1)]
    for record in records:
        assert record.keys() >= COMMON | TIMES | {"seal_rotation_seconds", "ratio_to_seal_rotation"}
        assert (record["eval_seconds"]["n"], record["seal_rotation_seconds"]["n"]) == (2, 20)
        ratio = record["eval_seconds"]["median"] / record["seal_rotation_seconds"]["median"]
        assert record["ratio_to_seal_rotation"] == pytest.approx(ratio, abs=0.01)
        assert record["ratio_to_seal_rotation"] < record["key_switches"] + record["hma"]
        assert (record["rotations_hoisted"] > 0) == (record["backend"] == "native")


def test_prediction_compares_every_shipped_model_with_two_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "SWEEPS", 1)
    monkeypatch.setattr(prediction, "EVALUATIONS", 2)
    monkeypatch.setattr(networks, "BUNDLES", tmp_path)
    for name in ("one", "two"):
        bundle.save(tiny_bundle(name), tmp_path / f"{name}.heinfer")
    assert run("prediction", "--json", str(tmp_path / "prediction.json")) == 0
    records = json.loads((tmp_path / "prediction.json").read_text())
    assert [record["network"] for record in records] == ["one", "two"]
    for record in records:
        assert record.keys() >= COMMON | TIMES | {"eval_cpu_seconds", "shipped_machine"}
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
    monkeypatch.setattr(networks, "BUNDLES", tmp_path)
    bundle.save(tiny_bundle(), tmp_path / "tiny.heinfer")
    run("prediction", "--json", str(tmp_path / "prediction.json"))
    (record,) = json.loads((tmp_path / "prediction.json").read_text())
    assert record["calibrated_milliseconds"]["rotate"] == 2 * 2.0  # at level 1
    assert record["calibrated_milliseconds"]["relinearize"] == 3.0  # at level 2
    shipped = cost_table(4096)
    assert record["shipped_milliseconds"]["rotate"] == pytest.approx(2 * shipped("rotation", 1), abs=0.01)
    assert record["shipped_machine"] == shipped.machine


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Records of a sweep over a small network, and the requirements that it was compiled for."""
    requirements = []

    def compile_small(_module, _name, asked):
        requirements.append(asked)
        return small_model(asked)

    out = tmp_path_factory.mktemp("sweep") / "sweep.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sweep, "BATCHES", (1, 4))
        patched.setattr(sweep, "KEY_LIMITS", (math.inf, 6e6))
        patched.setattr(sweep, "compile_on_digits", compile_small)
        patched.setattr(sweep, "RANKS", (2,))
        assert run("sweep", "--json", str(out)) == 0
    return json.loads(out.read_text()), requirements


def test_sweep_counts_and_predicts_every_plan(swept):
    records, requirements = swept
    curves = ["batch"] * 2 + ["key limit"] * 2 + ["upload limit"] * 2 + ["rank"] * 2
    assert [record["curve"] for record in records] == curves
    assert [record.get("rank") for record in records[-2:]] == [2, "not factorized"]
    assert [record["batch"] for record in records[:2]] == [1, 4]
    for record, asked in zip(records, requirements, strict=True):
        report = small_model(asked).report
        assert (record["rotations"], record["key_bytes"]) == (report.counts.rotations, report.key_bytes)
        assert record["upload_bytes"] == report.upload_bytes
        assert record["predicted_milliseconds"] == pytest.approx(report.predicted["tenseal"], abs=0.1)
        rotation = cost_table(record["ring_degree"])("rotation", record["levels"])
        assert record["predicted_ratio_to_seal_rotation"] == pytest.approx(
            record["predicted_milliseconds"] / rotation, rel=0.05
        )


def test_sweep_compiles_as_required(swept):
    _, requirements = swept
    assert {asked.limits.upload_bytes / asked.batch for asked in requirements} == {300_000, math.inf}
    assert {asked.limits.key_bytes for asked in requirements} == {6e6, math.inf}
    asked = replace(sweep.REQUIREMENTS, batch=4, limits=NO_LIMITS)
    model = networks.compile_on_digits(networks.random_module(sweep.NETWORK), sweep.NETWORK, asked)
    assert (model.manifest.name, model.manifest.batch) == ("mnist-ffconv", 4)


def test_sweep_says_how_good_every_rank_is_when_a_trained_network_is_given(tmp_path, monkeypatch):
    plain = reference(sweep.UNFACTORIZED).build().eval()
    monkeypatch.setattr(sweep, "load", lambda name, path: plain if (name, path.name) == ("mnist-plain", "a") else None)
    monkeypatch.setattr(networks, "mnist_test", lambda _dir: digits())
    monkeypatch.setattr(sweep, "_counted", lambda *_: {})
    run("sweep", "--json", str(tmp_path / "sweep.json"), "--checkpoint", "a")
    records = [record for record in json.loads((tmp_path / "sweep.json").read_text()) if "rank" in record]
    assert [record["rank"] for record in records] == [*sweep.RANKS, "not factorized"]
    assert {record["weights"] for record in records} == {"trained"}
    assert records[-1]["accuracy"] == evaluate(plain, digits().images, digits().labels)


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


def swept_record(curve: str, **changes) -> dict:
    record = {
        "curve": curve,
        "network": "net",
        "ring_degree": 8192,
        "batch": 1,
        "max_key_bytes": "none",
        "max_upload_bytes": 300_000,
        "rotations": 39,
        "keys": 12,
        "key_bytes": 22e6,
        "upload_bytes": 230_000,
        "predicted_milliseconds": 190.0,
        "predicted_ratio_to_seal_rotation": 19.0,
    }
    return record | changes


SWEEP = [
    swept_record("batch"),
    swept_record("batch", batch=64, predicted_ratio_to_seal_rotation=190.0, key_bytes=3.2e6, keys=5),
    swept_record("key limit"),
    swept_record("key limit", max_key_bytes=16e6, keys=9, key_bytes=16e6, rotations=45),
    swept_record("upload limit"),
    swept_record("upload limit", max_upload_bytes="none", upload_bytes=460_000, rotations=30),
    swept_record("rank", rank=4, accuracy=0.97),
    swept_record("rank", rank="not factorized", accuracy=0.992, rotations=48),
]


def test_the_plot_of_a_sweep_shows_what_the_records_say():
    figure = draw_sweep(SWEEP)
    speed, size, keys, upload, ranks = ([text.get_text() for text in axes.texts] for axes in figure.axes)
    assert ranks == ["39 rotations, 97.0 %", "48 rotations, 99.2 %"]
    assert [label.get_text() for label in figure.axes[4].get_yticklabels()] == ["rank 4", "not factorized"]
    assert speed == ["1.0x", "6.4x"]
    assert size == ["22,000", "230", "50", "4"]
    assert keys == ["12, 39", "9, 45"]
    assert upload == [
        "19.0, 39 rotations, 230 kB",
        "at most 300 kB of input",
        "19.0, 30 rotations, 460 kB",
        "no limit",
    ]
    (line,) = figure.axes[2].lines
    assert list(line.get_xdata()) == [22, 16]
    assert list(line.get_ydata()) == [19, 19]


def test_plots_are_drawn_of_the_results_that_there_are(tmp_path):
    assert run("plots", "--results", str(tmp_path)) == 0
    assert not list(tmp_path.iterdir())
    (tmp_path / "prediction.json").write_text(json.dumps([PREDICTION, PREDICTION]))
    assert run("plots", "--results", str(tmp_path)) == 0
    picture = (tmp_path / "prediction.png").read_bytes()
    run("plots", "--results", str(tmp_path))
    assert (tmp_path / "prediction.png").read_bytes() == picture  # nothing of the moment is in it
    (tmp_path / "sweep.json").write_text(json.dumps(SWEEP))
    run("plots", "--results", str(tmp_path))
    for name in ("prediction", "sweep"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(image.getcolors(1 << 24)) > 10


def test_the_plot_of_predictions_has_bars_as_long_as_the_records_say():
    figure = draw_prediction([PREDICTION, PREDICTION | {"network": "other"}])
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
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "n": 3}


# Pictures that no model was made for ----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_pictures_are_those_of_the_rule_and_always_the_same(shape):
    drawn = list(pictures(shape, 80))
    assert all(picture.shape == shape and picture.dtype == np.uint8 for picture in drawn)
    assert all(np.array_equal(one, other) for one, other in zip(drawn, pictures(shape, 40), strict=False))
    distinct = [max(len(np.unique(channel)) for channel in picture) for picture in drawn]
    assert set(distinct[0 :: len(FAMILIES)]) == {1}
    assert max(distinct[1 :: len(FAMILIES)] + distinct[2 :: len(FAMILIES)]) == 2
    widest = [int(np.ptp(picture)) for picture in drawn[3 :: len(FAMILIES)]]
    assert widest[7] > 200
    assert widest[:8] == sorted(widest[:8])
    assert set(np.unique(np.stack(drawn[4 :: len(FAMILIES)]))) == {0, 255}


@pytest.fixture
def overflowing(tmp_path, monkeypatch):
    """The benchmark of one model that ships, which dark images of a test set do not overflow; a run of it."""
    bundle.save(overflowing_bundle("over"), tmp_path / "over.heinfer")
    dark = np.random.default_rng(0).integers(60, 80, (8, 4, 4)).astype(np.uint8)
    monkeypatch.setattr(networks, "BUNDLES", tmp_path)
    monkeypatch.setattr(beyond, "bundle_file", lambda name: tmp_path / f"{name}.heinfer")
    monkeypatch.setattr(networks, "mnist_test", lambda _: Images(dark, np.zeros(8, dtype=np.int64)))
    monkeypatch.setattr(beyond, "PICTURES", 40)
    out = tmp_path / "range.json"
    return out, lambda: run("range", "--json", str(out), "--images", "20", "--tests", "8")


def test_range_counts_what_is_marked_and_goes_on_where_it_was(overflowing, monkeypatch):
    out, measure = overflowing
    real = beyond.Subject.answer
    done = []

    def interrupted(self, image):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(image)
        return real(self, image)

    monkeypatch.setattr(beyond.Subject, "answer", interrupted)
    measure()
    assert results(out.with_name("range.json.over.partial")) == [0, 1, 2]

    monkeypatch.setattr(beyond.Subject, "answer", real)
    assert measure() == 0
    (record,) = json.loads(out.read_text())
    assert record.keys() >= COMMON
    assert (record["network"], record["pictures"], record["encrypted"], record["test_images"]) == ("over", 40, 20, 8)
    for what, count in (("modelled", 40), ("encrypted", 20), ("test", 8)):
        assert sum(record[f"{what}_{mark}"] for mark in ("out_of_range", "uncertain", "unmarked")) == count
    assert record["modelled_wrong_out_of_range"] > 0
    assert record["encrypted_out_of_range"] > 0
    assert record["marked_otherwise"] == 0
    assert not list(out.parent.glob("*.partial"))


def test_range_fails_when_a_wrong_label_is_not_marked(overflowing, monkeypatch):
    out, measure = overflowing
    monkeypatch.setattr("heinfer_client.codec.read_marks", lambda *_: Marks(in_range=True, noise=0.0))
    assert measure() == 1
    assert json.loads(out.read_text())[0]["modelled_wrong_unmarked"] > 0


# Results that outlive an interruption --------------------------------------------------------------


def result(image: int) -> ImageResult:
    return ImageResult(image, True, False, 11.5, 0.25)


def test_results_survive(tmp_path):
    file = ResultsFile(tmp_path / "results", "a model", ImageResult)
    file.add(result(0))
    file.add(result(1))
    assert ResultsFile(tmp_path / "results", "a model", ImageResult).done == {0: result(0), 1: result(1)}


def test_a_line_cut_off_by_an_interruption_is_done_again(tmp_path):
    path = tmp_path / "results"
    file = ResultsFile(path, "a model", ImageResult)
    file.add(result(0))
    file.add(result(1))
    path.write_text(path.read_text()[:-10])
    file = ResultsFile(path, "a model", ImageResult)
    assert file.done == {0: result(0)}
    file.add(result(1))
    assert ResultsFile(path, "a model", ImageResult).done == {0: result(0), 1: result(1)}


@pytest.mark.parametrize("text", ["", "garbage", '"another model"\n', "\xff"])
def test_results_of_something_else_are_dropped(tmp_path, text):
    path = tmp_path / "results"
    path.write_text(text)
    assert ResultsFile(path, "a model", ImageResult).done == {}


@pytest.mark.skipif("native" not in INSTALLED, reason="heinfer-native is not built")
def test_primitives_sets_every_native_operation_beside_that_of_seal(tmp_path, monkeypatch):
    monkeypatch.setattr(primitives, "RINGS", {4096: ([28, 26], 30)})
    monkeypatch.setattr(primitives, "ROUNDS", 3)
    assert run("primitives", "--json", str(tmp_path / "primitives.json")) == 0
    records = json.loads((tmp_path / "primitives.json").read_text())
    assert [record["primitive"] for record in records] == list(primitives.PROBES)
    for record in records:
        assert (record["native_seconds"]["n"], record["seal_seconds"]["n"]) == (3, 3)
        ratio = record["seal_seconds"]["median"] / record["native_seconds"]["median"]
        assert record["ratio_to_seal"] == pytest.approx(ratio, abs=0.01)
        assert 0 < record["forward_microseconds"] < 1000


@pytest.mark.skipif("native" not in INSTALLED, reason="heinfer-native is not built")
def test_lower_bound_counts_what_an_evaluation_must_read_and_compute(tmp_path, monkeypatch):
    monkeypatch.setattr(lower_bound, "ROUNDS", 2)
    monkeypatch.setattr(networks, "BUNDLES", tmp_path)
    shutil.copy(zoo.BUNDLES / "mnist-ffconv.heinfer", tmp_path)
    assert run("lower-bound", "--json", str(tmp_path / "lower-bound.json")) == 0
    (record,) = json.loads((tmp_path / "lower-bound.json").read_text())
    assert record.keys() >= COMMON | TIMES
    assert record["lower_bound_seconds"] == max(record["streaming_seconds"], record["arithmetic_seconds"])
    assert record["streamed_bytes"] == record["streamed_key_bytes"] + record["streamed_plaintext_bytes"]
    assert record["streamed_key_bytes"] == 8 * 8192 * sum(
        (level + 1) * (level + 2) for level in plan_of(zoo.BUNDLES / "mnist-ffconv.heinfer").typed.key_levels.values()
    )
    assert record["eval_cpu_seconds"]["median"] > record["streaming_seconds"]


@pytest.mark.skipif("native" not in INSTALLED, reason="heinfer-native is not built")
def test_startup_starts_real_workers_and_tells_their_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "ROUNDS", 1)
    assert run("startup", "--json", str(tmp_path / "startup.json"), "--network", "mnist-ffconv") == 0
    alone, written, mapped = json.loads((tmp_path / "startup.json").read_text())
    assert [r["constants"] for r in (alone, written, mapped)] == ["encoded by each", "encoded and written", "mapped"]
    constants = plan_of(zoo.BUNDLES / "mnist-ffconv.heinfer").constant_bytes
    assert mapped["constants_file_bytes"] == constants + 4096
    # Mapped ones are no memory of the process alone.
    assert alone["own_memory_bytes"] - mapped["own_memory_bytes"] > constants / 2
    assert mapped["peak_memory_bytes"] >= mapped["own_memory_bytes"]


@pytest.mark.skipif("native" not in INSTALLED, reason="heinfer-native is not built")
def test_fairness_asks_beside_one_set_of_keys_and_beside_many(tmp_path):
    sizes = ["--workers", "1", "--sets", "3", "--room", "2", "--at-once", "3", "--requests", "4"]
    assert run("fairness", "--json", str(tmp_path / "fairness.json"), *sizes) == 0
    alone, one, many = json.loads((tmp_path / "fairness.json").read_text())
    assert [record["other_sets"] for record in (alone, one, many)] == [0, 1, 3]
    assert alone["other_per_second"] == 0
    assert min(one["other_per_second"], many["other_per_second"]) > 0
    assert all(0 < record["answered_seconds"]["p50"] <= record["answered_seconds"]["p95"] for record in (one, many))


@pytest.mark.skipif("native" not in INSTALLED, reason="heinfer-native is not built")
def test_plan_by_backend_sets_those_of_both_tables_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_by_backend, "ROUNDS", 2)
    assert run("plan-by-backend", "--json", str(tmp_path / "plans.json"), "--network", "mnist-ffconv") == 0
    seal, native = json.loads((tmp_path / "plans.json").read_text())
    assert (seal["cost_table"], native["cost_table"]) == ("tenseal", "native")
    for record in (seal, native):
        assert record["eval_cpu_seconds"]["n"] == 2
    # Each is at least nearly the best by the table that it was planned with: the search is a beam.
    assert native["predicted_native_seconds"] <= 1.02 * seal["predicted_native_seconds"]
    assert seal["predicted_tenseal_seconds"] <= 1.02 * native["predicted_tenseal_seconds"]
    assert native["rotations_hoisted"] > seal["rotations_hoisted"]


def plan_of(path) -> NativePlan:
    return native_plan(bundle.load(path).typed)

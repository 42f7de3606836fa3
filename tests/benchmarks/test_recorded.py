"""Documents say what records of benchmarks say."""

import json
from functools import cache
from hashlib import sha256

import pytest
from record_tables import RESULTS, ROOT, records
from recorded import TABLES, filled
from typer.main import get_command

from benchmarks.__main__ import app
from benchmarks.count import forms, policies
from benchmarks.measure.precision import fails
from benchmarks.support.records import plan_record
from heinfer.backends.native import native_plan
from heinfer.baselines.names import Policy
from heinfer.formats import bundle
from heinfer.planner.parameters import choose_parameters
from heinfer.zoo.shipped import bundle_path


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_that_of_its_record(name):
    document, _ = TABLES[name]
    assert document.read_text() == filled(name), "python tests/support/recorded.py writes it anew"


BEYOND = {"lenet5-mnist": 3, "cifar-accurate": 1}
"""Test images whose scores are beyond what the parameters represent, as docs/benchmarks.md says."""


def test_no_label_was_wrong_without_a_mark():
    for record in records("range"):
        for what in ("modelled_wrong_unmarked", "encrypted_wrong_unmarked", "test_wrong_unmarked"):
            assert record[what] == 0, (record["network"], what)
        assert record["test_out_of_range"] == BEYOND.get(record["network"], 0)
    (survive,) = records("survive")
    assert [survive[what] for what in ("wrong", "mixed_up", "lost", "untyped_errors")] == [0, 0, 0, 0]


def test_no_prediction_of_precision_is_two_bits_too_low_or_half_a_bit_too_high():
    found = records("precision")
    assert len(found) >= 6 + 20
    assert not [record["network"] for record in found if fails(record)]


OF_BUNDLES = {"accuracy", "latency", "lower-bound", "prediction", "range"}
"""Benchmarks of bundles, but under a policy of latency, whose records say that the weights are others."""

OLDER = {
    f"{file} {network}"
    for file, networks in {
        "lower-bound": ("lenet5-mnist", "lola-mnist", "mnist-plain"),
        "zen1-lower-bound": ("lenet5-mnist", "lola-mnist", "mnist-plain", "cifar-fast", "cifar-accurate"),
        "prediction": ("lenet5-mnist", "lola-mnist", "mnist-plain"),
    }.items()
    for network in networks
}
"""Of bundles that shipped before their primes were widened, of the same circuits: docs/benchmarks.md says so."""

OF_THIS_RUN = {"benchmark", "backend", "threads", "rotations_hoisted", "machine", "date"}


@cache
def shipped(name):
    return plan_record("", bundle.load(bundle_path(name)))


def every_record():
    """File and record of all that there are, of other machines as well."""
    return [(path.stem, record) for path in sorted(RESULTS.rglob("*.json")) for record in json.loads(path.read_text())]


def test_every_file_of_records_is_of_a_benchmark_that_there_is():
    assert {record["benchmark"] for _, record in every_record()} <= get_command(app).commands.keys()


def unlike(record) -> set[str]:
    """What a record says otherwise than the bundle of its network."""
    ships = shipped(record["network"])
    return {key for key in ships.keys() & record.keys() - OF_THIS_RUN if record[key] != ships[key]}


def test_a_record_of_a_bundle_is_of_the_one_that_ships():
    found = [
        (f"{file} {record['network']}", unlike(record))
        for file, record in every_record()
        if record["benchmark"] in OF_BUNDLES and "weights" not in record
    ]
    assert {name for name, differs in found if differs} == OLDER
    # The circuits are those that ship, so that times and counts of operations still hold.
    assert set().union(*(differs for _, differs in found)) == {"log_qp", "key_bytes", "upload_bytes", "download_bytes"}


def test_a_range_is_that_of_the_very_file():
    for record in records("range"):
        assert record["sha256"] == sha256(bundle_path(record["network"]).read_bytes()).hexdigest(), record["network"]


def test_constants_that_a_worker_maps_are_those_of_the_bundle():
    written = {record["network"]: record["constants_file_bytes"] for record in records("startup")}
    for name, size in written.items():
        constants = native_plan(bundle.load(bundle_path(name)).typed).constant_bytes
        assert 0 < size - constants <= 4096, name  # the file's head


# Of what is only counted -----------------------------------------------------------------------------


def test_every_plan_that_is_counted_has_the_primes_that_are_chosen_now():
    counted = [
        (file, record)
        for file, record in every_record()
        if record["benchmark"] in {"forms", "policies", "sweep"} and "failure" not in record
    ]
    for file, record in counted:
        parameters = choose_parameters(record["levels"], record["ring_degree"])
        assert record["log_qp"] == round(parameters.log_qp, 3), (file, record["network"])


@pytest.mark.parametrize("name", ["mnist-ffconv", "lola-mnist"])
def test_policies_are_counted_as_the_planner_plans_now(name):
    for record in records("policies"):
        if record["network"] == name:
            now = policies._planned(name, Policy(record["policy"]), record["objective"])
            assert {key: record[key] for key in now if key != "planning_peak_mb"} == {
                key: value for key, value in now.items() if key != "planning_peak_mb"
            }


def test_forms_are_counted_as_the_planner_plans_now():
    for record in records("forms"):
        if record["network"] in ("lola-mnist", "lola-mnist-falcon@16", "mnist-ffconv"):
            now = forms._record(forms.Case(record["network"], Policy(record["policy"])), 1, 0, count=True)
            counts = now.keys() & {*cost_record_keys(), "keys", "input_ciphertexts", "sampled", "accuracy"}
            assert {key: record[key] for key in counts} == {key: now[key] for key in counts}, record["network"]


def test_the_sweep_begins_with_what_ships():
    ships = shipped("mnist-ffconv")
    for curve in ("batch", "key limit", "upload limit"):
        first = next(record for record in records("sweep") if record["curve"] == curve)
        assert {key: first[key] for key in cost_record_keys()} == {key: ships[key] for key in cost_record_keys()}


def test_latency_for_any_upload_is_of_the_plan_that_policies_counts():
    (planned,) = (
        record
        for record in records("policies")
        if (record["network"], record["policy"], record["objective"]) == ("mnist-ffconv", "heinfer", "time")
    )
    for record in records("latency-any-upload"):
        assert {key: record[key] for key in cost_record_keys()} == {key: planned[key] for key in cost_record_keys()}


def cost_record_keys() -> set[str]:
    """The counts and sizes that a record has of any plan; what published methods encode is not counted."""
    named = {"network", "policy", "plaintexts"}
    return shipped("mnist-ffconv").keys() - OF_THIS_RUN - named


def test_the_times_that_the_readme_quotes_are_of_the_record():
    readme = (ROOT / "README.md").read_text()
    native = sorted(
        (record["threads"], record["ratio_to_seal_rotation"])
        for record in records("latency")
        if record["backend"] == "native"
    )
    (one,) = (ratio for threads, ratio in native if threads == 1)
    (two,) = (ratio for threads, ratio in native if threads == 2)
    assert f"= {one:.1f} SEAL rotations / " in readme
    assert f"= {two:.1f} |" in readme


@pytest.mark.parametrize(("name", "digits"), [("cifar-fast", 3), ("cifar-accurate", 2)])
def test_the_times_of_cifar_that_documents_quote_are_of_the_records_that_are_drawn(name, digits):
    readme, benchmarks = ((ROOT / name).read_text() for name in ("README.md", "docs/benchmarks.md"))
    measured = records(f"latency-{name}-native")
    one, two = (record["eval_seconds"]["median"] for record in measured)
    assert f"{one:.{digits - 1}f} s / {two:.{digits - 1}f} s" in readme
    for record in measured:
        median, least, most = (f"{record['eval_seconds'][which]:.{digits}f}" for which in ("median", "min", "max"))
        ratio = f"{record['ratio_to_seal_rotation']:.1f}"
        assert f"| {record['threads']} | {median} | {least}-{most} | {ratio} |" in benchmarks

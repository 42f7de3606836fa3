"""Documents say what records of benchmarks say."""

import json
from functools import cache

import pytest
from recorded import RESULTS, ROOT, TABLES, filled, records

from benchmarks.support.records import plan_record
from heinfer.formats import bundle
from heinfer.zoo.shipped import bundle_path


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_that_of_its_record(name):
    document, _ = TABLES[name]
    assert document.read_text() == filled(name), "python tests/support/recorded.py writes it anew"


BEYOND = {"lenet5-mnist": 3}
"""Test images whose scores are beyond what the parameters represent, as docs/benchmarks.md says."""


def test_no_label_was_wrong_without_a_mark():
    for record in records("range"):
        for what in ("modelled_wrong_unmarked", "encrypted_wrong_unmarked", "test_wrong_unmarked"):
            assert record[what] == 0, (record["network"], what)
        assert record["test_out_of_range"] == BEYOND.get(record["network"], 0)
    (survive,) = records("survive")
    assert [survive[what] for what in ("wrong", "mixed_up", "lost", "untyped_errors")] == [0, 0, 0, 0]


CURRENT = ("accuracy*.json", "latency.json", "latency-cifar-*.json", "range.json", "service.json", "startup.json")
"""Records of bundles that ship; others are of plans under other limits, or of what was planned then."""


@cache
def shipped(name):
    return plan_record("", bundle.load(bundle_path(name)))


@pytest.mark.parametrize(
    "path", [path for pattern in CURRENT for path in sorted(RESULTS.glob(pattern))], ids=lambda path: path.stem
)
def test_a_record_is_of_the_bundle_that_ships(path):
    for record in json.loads(path.read_text()):
        ships = shipped(record["network"])
        for what in ("ring_degree", "levels", "rotations", "key_bytes", "upload_bytes", "download_bytes"):
            assert record.get(what, ships[what]) == ships[what], (record["network"], what)


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

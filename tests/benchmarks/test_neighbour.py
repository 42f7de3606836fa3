"""The benchmark of evaluations beside a busy process."""

import json

import pytest
from installed import INSTALLED
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.measure.neighbour import BESIDE

pytestmark = pytest.mark.skipif("native" not in INSTALLED, reason="heinfer-native is not built")


def test_every_case_is_measured_and_held_against_one_thread(tmp_path):
    path = tmp_path / "neighbour.json"
    options = ["--network", "mnist-ffconv", "--samples", "1", "--minutes", "0", "--json", str(path)]
    assert CliRunner().invoke(app, ["neighbour", *options]).exit_code == 0
    records = json.loads(path.read_text())
    assert [(r["beside"], r["threads"]) for r in records] == [(b, t) for b in BESIDE for t in (1, 2)]
    for record in records:
        assert record["samples"] == 1
        assert 0.1 < record["processors"] < record["threads"] + 0.1
        assert record["threads"] == 2 or record["times_one_thread"] == 1
        assert record["others"] > -0.2  # what the system counts in hundredths

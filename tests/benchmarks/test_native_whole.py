"""The benchmark `whole` on a network small enough for a test: what is executed is what was planned, and right."""

import json

import pytest

from benchmarks import whole
from benchmarks.__main__ import app

pytestmark = pytest.mark.slow

pytest.importorskip("heinfer_native")


def test_a_network_as_lola_lays_it_out_is_executed_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "NETWORK", "lola-mnist")
    path = tmp_path / "whole.json"
    app(["whole", "--json", str(path), "--memory", "1e7"], standalone_mode=False)
    (record,) = json.loads(path.read_text())
    assert (record["rotations_hoisted"], record["sampled"]) == (0, "nothing")
    assert record["rotations"] > 100
    assert record["constant_bytes"] < 1.1e7  # scalars are kept whatever the limit
    assert record["precision_bits"] > 6

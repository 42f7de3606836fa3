"""The benchmark of limits on the memory of constants."""

import json
import shutil

import numpy as np
import pytest
from installed import INSTALLED
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.measure import constants, limited
from benchmarks.measure.constants import periodic
from benchmarks.support import networks
from heinfer import zoo
from heinfer.circuit.ir import Circuit

pytestmark = pytest.mark.skipif("native" not in INSTALLED, reason="heinfer-native is not built")


def test_a_network_runs_under_every_limit_of_coefficients_and_of_slots(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ROUNDS", 2)
    monkeypatch.setattr(networks, "BUNDLES", tmp_path)
    shutil.copy(zoo.BUNDLES / "mnist-ffconv.heinfer", tmp_path)
    path = tmp_path / "constants.json"
    for _ in range(2):  # the second time the records are replaced
        assert CliRunner().invoke(app, ["constants", "--json", str(path)]).exit_code == 0
    whole, *limited = json.loads(path.read_text())
    assert [(r["share"], r["made_of"]) for r in limited] == [
        (share, made_of) for share in (0.3, 0.1) for made_of in ("coefficients", "slots")
    ]
    assert (whole["kept_slots"], whole["kept_coefficients"], whole["kept_residues"]) == (0, 0, 82)
    assert whole["predicted_constants_seconds"] == 0
    least = 4 * 8192 * 82
    for record in limited:
        others = {"coefficients": "slots", "slots": "coefficients"}
        assert record[f"kept_{others[record['made_of']]}"] == 0
        assert record[f"kept_{record['made_of']}"] > 0
        assert record["constant_bytes"] <= max(record["share"] * whole["constant_bytes"], least)
    coefficients, slots = (r["predicted_constants_seconds"] for r in limited[2:])
    assert 0 < 3 * coefficients < slots  # a Fourier transform, and words reduced one by one, besides the transforms


def test_a_vector_is_periodic_when_its_halves_are_equal():
    halves, other = np.array([1.0, 2.0, 1.0, 2.0]), np.array([1.0, 2.0, 2.0, 1.0])
    assert periodic(Circuit(4, (), (), (halves, other, np.array([3.0]), np.ones(4)))) == 2


@pytest.mark.slow
def test_a_network_of_random_weights_is_compiled_and_right_under_every_limit(tmp_path, monkeypatch):
    least, room = 4 * 8192 * 199, 20_000_000  # of coefficients; and for some residues
    monkeypatch.setattr(limited, "LIMITS", (room, 1))
    path = tmp_path / "limited.json"
    done = CliRunner().invoke(app, ["constants", "--sized", "2 x 16 at 16", "--json", str(path)])
    assert done.exit_code == 0
    records = json.loads(path.read_text())
    assert [(r["limit_bytes"], r["threads"]) for r in records] == [(room, 2), (room, 1), (1, 2), (1, 1)]
    for record in records:
        assert 0.9 * least < record["constant_bytes"] <= max(record["limit_bytes"], 1.1 * least)
        assert record["precision_bits"] > 8
        assert 0 < record["compile_peak_bytes"] < 2 * record["predicted_peak_bytes"]

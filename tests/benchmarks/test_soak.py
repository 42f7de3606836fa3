"""The soak, for a short time: every kind of fault once at least, and nothing lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak.faults import FAULTS, LAST

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECONDS = 400.0


def test_the_service_gets_over_every_fault(tmp_path):
    file = tmp_path / "soak.json"
    command = [sys.executable, "-m", "benchmarks", "soak", "--minutes", "0.5", "--pause", "1", "--json", str(file)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (record,) = json.loads(file.read_text())
    assert record["right"] > 20
    assert record["wrong"] == record["lost_keys"] == record["leaked_processes"] == 0
    assert record["faults"].keys() == {fault.__name__ for fault in (*FAULTS, *LAST)}

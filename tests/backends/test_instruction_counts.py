"""No kernel takes more instructions than benchmarks/results/instructions.json says, where one compiler made both."""

import json
import shutil

import pytest

from benchmarks.count.instructions import ROOT, compiler, measure

pytestmark = pytest.mark.slow

RECORDED = {
    (record["kernels"], record["kernel"]): record
    for record in json.loads((ROOT / "benchmarks" / "results" / "instructions.json").read_text())
}


@pytest.mark.skipif(not (shutil.which("valgrind") and shutil.which("c++")), reason="needs valgrind and a C++ compiler")
def test_no_kernel_takes_more_instructions_than_recorded():
    counted = {(record["kernels"], record["kernel"]): record for record in measure()}
    assert counted.keys() <= RECORDED.keys()
    assert all(record["instructions"] > 0 for record in counted.values())
    if {record["compiler"] for record in RECORDED.values()} == {compiler()}:
        more = {
            key: (record["instructions"], RECORDED[key]["instructions"])
            for key, record in counted.items()
            if record["instructions"] > 1.02 * RECORDED[key]["instructions"]
        }
        assert not more, "counted and recorded: python -m benchmarks instructions records anew what is meant so"
    # A row is written by a store for every eight words, or more: fewer instructions would be no kernel at all.
    assert all(r["instructions"] > 8192 / 8 for (_, name), r in counted.items() if name != "expand_nodes")

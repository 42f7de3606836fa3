"""Limits on keys: what they may cost in time, and what a refusal says."""

import re

import numpy as np
import pytest
from random_networks import chain, dense, polynomial

from heinfer.circuit.counts import count_circuit
from heinfer.errors import PlanError
from heinfer.lowering.circuits import plan_circuit
from heinfer.network.folding import fold
from heinfer.planner.requirements import Limits, Requirements


def test_few_keys_may_not_take_any_time() -> None:
    """A limit on keys under which rotations multiply is refused with one that would do, unless that time is allowed."""
    rng = np.random.default_rng(0)
    folded = fold(chain((36,), dense(rng, 36, 132), polynomial(rng, 132), dense(rng, 132, 36)))

    def rotations(**limits: float) -> int:
        _, circuit = plan_circuit(folded, Requirements(limits=Limits(**limits)))
        return count_circuit(circuit).rotations

    free = rotations()
    with pytest.raises(PlanError, match=r"^with key_bytes = 1300000 an .* slowdown = 1.5 allows") as refusal:
        rotations(key_bytes=1.3e6, slowdown=1.5)
    [(enough, milliseconds)] = re.findall(r"key_bytes = (\d+) gives (\d+) ms", str(refusal.value))
    [allowed] = re.findall(r"Limits\(slowdown=([\d.]+)\)", str(refusal.value))
    assert rotations(key_bytes=1.3e6, slowdown=float(allowed)) > 2 * free
    assert free <= rotations(key_bytes=float(enough), slowdown=1.5) < 2 * free
    assert int(milliseconds) > 0

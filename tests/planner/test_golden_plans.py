"""What the search finds for every reference network: counts and a digest of the circuit, so that no change goes unseen.

A change of the planner that alters one of these says so and says why; anything else must leave them as they are.
"""

from hashlib import sha256

import pytest
import torch
from random_networks import circuit_of

from heinfer.circuit.counts import count_circuit
from heinfer.frontend import trace
from heinfer.network.folding import fold
from heinfer.planner.parameters import choose_parameters
from heinfer.planner.requirements import Objective, Requirements
from heinfer.planner.search.search import plan_network
from heinfer.zoo.registry import reference

pytestmark = pytest.mark.slow

TIME, KEY_SWITCHES = Requirements(), Requirements(objective=Objective.KEY_SWITCHES)


def found(name: str, levels: int | None, degree: int, requirements: Requirements) -> tuple[tuple[int, ...], str]:
    """Ring degree, levels, input ciphertexts, rotations, key switches and HMAs of a plan, and its digest."""
    network = reference(name)
    torch.manual_seed(0)  # nothing below depends on the weights
    folded = fold(trace(network.build().eval(), network.data.shape))
    plan = plan_network(folded, choose_parameters(levels, degree) if levels else None, requirements)
    circuit = circuit_of(plan)
    counts = count_circuit(circuit)
    ops = "\n".join(f"{op.kind} {op.args} {op.step} {op.constant} {op.input}" for op in circuit.ops)
    summary = plan.parameters.ring_degree, len(plan.steps), plan.input.ciphertexts
    return (*summary, counts.rotations, counts.key_switches, counts.hma), sha256(ops.encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("name", "levels", "degree", "requirements", "counts", "digest"),
    [
        ("mnist-ffconv", None, 0, TIME, (8192, 6, 2, 38, 40, 76), "41d32c0c3c12"),
        ("mnist-ffconv", None, 0, KEY_SWITCHES, (8192, 6, 2, 38, 40, 76), "83c649d4b8bd"),
        ("mnist-plain", None, 0, TIME, (8192, 5, 2, 43, 45, 176), "5b2474920048"),
        ("lola-mnist", None, 0, TIME, (8192, 5, 2, 46, 48, 160), "f87daf5abc6d"),
        ("lenet5-mnist", None, 0, TIME, (16384, 10, 1, 103, 107, 423), "d3daa3cbefd1"),
        ("cifar-ffconv", None, 0, TIME, (16384, 10, 1, 118, 122, 590), "b52d842199a9"),
        ("cifar-ffconv", 10, 16384, KEY_SWITCHES, (16384, 10, 3, 116, 120, 590), "988b62750c4d"),
        ("cifar-plain", None, 0, TIME, (16384, 8, 1, 137, 141, 1374), "9d09113bf703"),
        ("lola-cifar-ffconv", None, 0, TIME, (8192, 6, 12, 151, 160, 2240), "c644d6abb3c1"),
        ("lola-cifar-ffconv", 6, 16384, KEY_SWITCHES, (16384, 6, 6, 116, 121, 1136), "c2b3e50fb745"),
    ],
)
def test_the_search_finds_what_it_found(
    name: str, levels: int | None, degree: int, requirements: Requirements, counts: tuple[int, ...], digest: str
) -> None:
    assert found(name, levels, degree, requirements) == (counts, digest)

"""One answer to what a network costs, whoever is asked."""

from functools import cache

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from heinfer.circuit.counts import Counts, count_circuit
from heinfer.circuit.levels import key_levels
from heinfer.convert.timing import planned
from heinfer.costs.cost import Cost
from heinfer.costs.tables import cost_table
from heinfer.frontend import trace
from heinfer.lowering.circuits import cost_of, plan_circuit
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.planner.requirements import Requirements
from heinfer.zoo.registry import reference
from heinfer_cli.main import app

BACKENDS = ("tenseal", "native")


@cache
def module(name: str) -> nn.Module:
    torch.manual_seed(0)
    return reference(name).build().eval()


@cache
def folded(name: str) -> Network:
    return fold(trace(module(name), reference(name).data.shape))


@cache
def told(name: str, backend: str) -> Cost:
    return cost_of(folded(name), Requirements(backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["mnist-ffconv", "mnist-plain"])
def test_every_door_says_the_same(name: str, backend: str) -> None:
    assert_every_door_says_the_same(name, backend)


def assert_every_door_says_the_same(name: str, backend: str) -> None:
    """What is compiled, what a plan is said to cost, and what ranks are chosen by."""
    requirements = Requirements(backend=backend)
    cost = told(name, backend)
    plan, circuit = plan_circuit(folded(name), requirements)
    assert cost.counts == count_circuit(circuit)
    assert cost.key_levels == key_levels(circuit, plan.input_level)
    assert cost.input_level == plan.input_level
    timing = planned(module(name), reference(name).data.shape, requirements)
    assert sum((layer.counts for layer in timing.layers), Counts()) == cost.counts
    for table in BACKENDS:
        spent = timing.milliseconds(cost_table(plan.parameters.ring_degree, table))
        assert spent == pytest.approx(cost.predicted[table], rel=1e-12)


def test_the_command_line_says_it_too() -> None:
    result = CliRunner().invoke(
        app, ["plan", "mnist-ffconv", "--policy", "heinfer", "--backend", "native"], env={"COLUMNS": "100"}
    )
    assert result.exit_code == 0
    cost = told("mnist-ffconv", "native")
    assert f"{cost.counts.key_switches}, of them {cost.counts.rotations} rotations" in result.stdout
    native, seal = (f"{cost.predicted[backend]:.0f}" for backend in ("native", "tenseal"))
    assert f"{native} ms on native ({seal} on tenseal)" in result.stdout

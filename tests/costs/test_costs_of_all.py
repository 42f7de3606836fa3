"""One answer to what a network costs: of every reference network."""

import pytest
from test_costs import BACKENDS, assert_every_door_says_the_same

from heinfer.network.ir import Network
from heinfer.planner import planner
from heinfer.planner.plan import Plan
from heinfer.planner.requirements import Requirements
from heinfer.planner.search.search import plan_network
from heinfer.zoo import NETWORKS

pytestmark = pytest.mark.slow


@pytest.fixture
def planned_once(monkeypatch):
    """The search takes minutes for the large networks, and finds the same again: what is asked is what follows."""
    plans: dict[object, Plan] = {}

    def plan(network: Network, *, requirements: Requirements) -> Plan:
        key = (network.input_shape, tuple(node.name for node in network.nodes), network.shapes, requirements)
        if key not in plans:
            plans[key] = plan_network(network, requirements=requirements)
        return plans[key]

    monkeypatch.setattr(planner, "plan_network", plan)


ONLY_PLANNED = {"lola-cifar", "lola-cifar-ffconv", "lola-cifar-falcon", "cifar-plain", "cifar-ffconv", "cifar-resnet"}
"""Networks whose search by the native table takes a minute each; they are planned by SEAL's everywhere else, too."""


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, backend) for name in NETWORKS for backend in BACKENDS if backend == "tenseal" or name not in ONLY_PLANNED],
)
def test_every_door_says_the_same(name: str, backend: str, planned_once: None) -> None:
    assert_every_door_says_the_same(name, backend)

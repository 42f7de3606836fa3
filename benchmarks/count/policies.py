"""policies: what every network costs under every policy and objective; counts only, no key is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.support.memory import peak_bytes
from benchmarks.support.networks import random_network
from benchmarks.support.options import Json
from benchmarks.support.processes import in_a_process
from benchmarks.support.records import Record, counted_record, head, save_records, write_table
from heinfer.baselines.names import Policy
from heinfer.baselines.planning import planner_of
from heinfer.formats import bundle
from heinfer.lowering.circuits import cost_of
from heinfer.nn.circulant import SpectralConv2d
from heinfer.planner.requirements import Objective, Requirements
from heinfer.zoo import BUNDLES, NETWORKS
from heinfer.zoo.registry import reference

OBJECTIVES = Objective.TIME, Objective.KEY_SWITCHES
PRESCRIBED = "prescribed"
"""The objective of a published method: it has nothing to choose."""

_SHOWN = "network", "policy", "objective", "ring_degree", "rotations", "key_switches", "hma", "failure"


def policies(
    json: Json,
    network: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Of a network; may be repeated.", show_default="all")
    ] = None,
) -> None:
    """Plan every reference network under every policy, each in a process of its own, and count what is executed.

    A network that a policy has no plan for gets a record that says why. Steps of published methods that are too large
    to be planned whole are sampled: the records name them. Records are written as they come.
    """
    names = [reference(name).name for name in network or NETWORKS]
    records: list[Record] = []
    for case in track([case for name in names for case in _cases(name)], description="planning"):
        records.append(_record(*case))
        save_records(records, json)
    write_table(records, _SHOWN, json)


def _cases(name: str) -> Iterator[tuple[str, Policy, str]]:
    """What a network is planned under: Falcon where layers are block-circulant, a twin where one can be."""
    circulant = any(isinstance(part, SpectralConv2d) for part in reference(name).build().modules())
    for policy in Policy:
        if policy is Policy.FALCON and not circulant:
            continue
        if policy.is_published:
            yield name, policy, PRESCRIBED
        elif policy is Policy.HEINFER or reference(name).base:
            yield from ((name, policy, objective.value) for objective in OBJECTIVES)


def _record(name: str, policy: Policy, objective: str) -> Record:
    """The record of one plan."""
    about = head("policies", network=name, policy=policy.value, objective=objective) | _accuracy(name)
    return about | in_a_process(_planned, name, policy, objective)


def _accuracy(name: str) -> Record:
    """On all test images, in cleartext, of the network that ships trained; a policy does not change it."""
    path = BUNDLES / f"{name}.heinfer"
    return {"accuracy": float(bundle.load(path).metadata["test accuracy"])} if path.exists() else {}


def _planned(name: str, policy: Policy, objective: str) -> Record:
    requirements = Requirements() if policy.is_published else Requirements(objective=Objective(objective))
    cost = cost_of(random_network(name), requirements, planner_of(policy))
    return counted_record(cost) | {"planning_peak_mb": round(peak_bytes() / 1e6, 1)}

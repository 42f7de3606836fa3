"""rotations: what every network costs under every policy and objective; counts only, no key is made."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from pathlib import Path
from time import process_time
from typing import Annotated

import torch
import typer
from rich.progress import track

from benchmarks.options import Json
from benchmarks.records import Record, save_records, show_table
from heinfer.calibration.prediction import predict
from heinfer.circuit.annotate import annotate
from heinfer.circuit.counts import count_circuit
from heinfer.circuit.ir import Circuit
from heinfer.circuit.lowering import lower
from heinfer.circuit.passes import mark_hoisting, merge_common_subexpressions, remove_dead_code
from heinfer.errors import PlanError
from heinfer.formats.frames import ciphertexts_length, keys_length
from heinfer.frontend import trace
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.planner.cost import cost_table
from heinfer.planner.objective import Objective, Wishes
from heinfer.planner.plan import Plan
from heinfer.planner.search import plan_network
from heinfer.zoo import NETWORKS
from heinfer.zoo.registry import reference

POLICIES: Mapping[str, Callable[[Network, Wishes], Plan]] = {
    "heinfer": lambda network, wishes: plan_network(network, wishes=wishes),
}
OBJECTIVES = Objective.TIME, Objective.KEY_SWITCHES
SEED = 0
"""Of the weights: counts do not depend on them."""

_COLUMNS = {
    "network": "network",
    "policy": "policy",
    "objective": "objective",
    "ring_degree": "N",
    "levels": "levels",
    "input_ciphertexts": "inputs",
    "rotations": "rotations",
    "key_switches": "key switches",
    "hma": "HMA",
    "keys": "keys",
    "predicted_milliseconds": "ms",
    "planning_seconds": "planned in s",
    "planning_peak_mb": "peak MB",
    "failure": "",
}
_SCALE = 1.0  # of the inputs: levels do not depend on it


def rotations(
    json: Json,
    network: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Of a network; may be repeated.", show_default="all")
    ] = None,
) -> None:
    """Plan every reference network, each in a process of its own, and count what its circuit does.

    Seconds of planning are the processor's. A network that a policy has no plan for gets a record that says why.
    Records are written as they come.
    """
    names = [reference(name).name for name in network or NETWORKS]
    records: list[Record] = []
    for case in track(list(product(names, POLICIES, OBJECTIVES)), description="planning"):
        records.append(_in_a_process(*case))
        save_records(records, json)
    show_table(records, _COLUMNS, json)


def _in_a_process(name: str, policy: str, objective: Objective) -> Record:
    """The record of one plan: memory is measured of a whole process, and a process that dies takes no other along."""
    head: Record = {
        "benchmark": "rotations",
        "network": name,
        "policy": policy,
        "objective": objective.value,
        "backend": "tenseal",
        "threads": 1,
    }
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return head | pool.submit(_planned, name, policy, objective).result()
        except PlanError as error:
            return head | {"failure": str(error)}
        except BrokenProcessPool:
            return head | {"failure": "the process that planned it died"}


def _planned(name: str, policy: str, objective: Objective) -> Record:
    torch.manual_seed(SEED)
    about = reference(name)
    network = fold(trace(about.build(), about.data.shape))
    started = process_time()
    plan = POLICIES[policy](network, Wishes(objective=objective))
    seconds = process_time() - started
    peak = _peak_megabytes()
    circuit = lower(plan)
    for improve in (merge_common_subexpressions, remove_dead_code, mark_hoisting):
        circuit = improve(circuit)
    return _counted(plan, circuit) | {"planning_seconds": round(seconds, 2), "planning_peak_mb": peak}


def _counted(plan: Plan, circuit: Circuit) -> Record:
    parameters, counts = plan.parameters, count_circuit(circuit)
    steps, relinearization = circuit.steps(), circuit.needs_relinearization
    types = annotate(circuit, parameters, plan.input_level, _SCALE)
    output = types[circuit.outputs[0]].level
    milliseconds = predict(circuit, types, cost_table(parameters.ring_degree))
    return {
        "ring_degree": parameters.ring_degree,
        "log_qp": round(parameters.log_qp, 3),
        "levels": plan.input_level,
        "rotations": counts.rotations,
        "rotations_hoisted": 0,  # what runs hoisted: SEAL shares nothing between rotations, whatever the plan marks
        "key_switches": counts.key_switches,
        "hma": counts.hma,
        "ct_ct_mults": counts.ct_ct_mults,
        "plaintexts": counts.plaintexts,
        "input_ciphertexts": circuit.inputs,
        "keys": len(steps) + relinearization,
        "key_bytes": keys_length(parameters, steps=steps, relinearization=relinearization),
        "upload_bytes": ciphertexts_length(parameters, count=circuit.inputs, level=plan.input_level, seeded=True),
        "download_bytes": ciphertexts_length(parameters, count=len(circuit.outputs), level=output, seeded=False),
        "predicted_milliseconds": round(sum(milliseconds), 1),
    }


def _peak_megabytes() -> float:
    """The most memory that this process has had; not ru_maxrss, which knows of what the process was before."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return round(int(found[1]) * 1024 / 1e6, 1)

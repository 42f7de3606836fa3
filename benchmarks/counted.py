"""What a record says of a plan that is counted and not run."""

from __future__ import annotations

from benchmarks.records import Record, cost_record
from heinfer.circuit.ir import Circuit
from heinfer.costs.cost import Cost, circuit_cost
from heinfer.costs.tables import cost_tables
from heinfer.planner.plan import Plan


def counted_record(cost: Cost) -> Record:
    """Counts, keys and the milliseconds by SEAL's table; steps of thousands of ciphertexts are sampled."""
    sampled = (f"{step} {some} of {number}" for step, (some, number) in cost.sampled.items())
    return cost_record(cost) | {
        "input_ciphertexts": cost.input_ciphertexts,
        "keys": cost.key_count,
        "predicted_milliseconds": round(cost.predicted["tenseal"], 1),
        "sampled": ", ".join(sampled) or "nothing",
    }


def circuit_record(plan: Plan, circuit: Circuit) -> Record:
    """The same of a circuit that was made of a plan."""
    tables = cost_tables(plan.parameters.ring_degree)
    return counted_record(circuit_cost(circuit, plan.parameters, plan.input_level, tables))

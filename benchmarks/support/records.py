"""Records: flat, with the same names in every benchmark, so that tables and plots can be made of any of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TypeAlias

from rich.console import Console
from rich.table import Table

from heinfer.circuit.ir import Circuit
from heinfer.compiler.report import report
from heinfer.costs.cost import Cost, circuit_cost
from heinfer.costs.tables import cost_tables
from heinfer.formats.bundle import Bundle
from heinfer.measurement.machine import describe_machine, today
from heinfer.planner.plan import Plan

Value: TypeAlias = str | int | float | dict[str, float]
Record: TypeAlias = dict[str, Value]

_LEAST_WIDTH = 140
"""Of a table: a file or a pipe has no width, and broken columns help nobody."""


def head(benchmark: str, **facts: Value) -> Record:
    """What a record begins with: its benchmark, where and when it was made, and what it is of."""
    return {"benchmark": benchmark, **facts, "machine": describe_machine(), "date": today()}


def plan_record(
    benchmark: str, bundle: Bundle, backend: str = "tenseal", threads: int = 1, rotations_hoisted: int = 0
) -> Record:
    """What a record says of a compiled model that runs on a backend.

    Args:
        rotations_hoisted: what ran hoisted: SEAL shares nothing between rotations, whatever the plan marks.
    """
    facts = report(bundle)
    named = head(benchmark, network=facts.name, policy=facts.policy, backend=backend, threads=threads)
    return named | cost_record(facts) | {"rotations_hoisted": rotations_hoisted}


def cost_record(cost: Cost) -> Record:
    """What a record says of any cost; as on SEAL, which shares nothing between rotations, whatever the plan marks.

    Plaintexts are those of a circuit: of plans that are counted without one nobody knows how many differ.
    """
    parameters, counts = cost.parameters, cost.counts
    return {
        "ring_degree": parameters.ring_degree,
        "log_qp": round(parameters.log_qp, 3),
        "levels": cost.input_level,
        "rotations": counts.rotations,
        "rotations_hoisted": 0,
        "key_switches": counts.key_switches,
        "hma": counts.hma,
        "ct_ct_mults": counts.ct_ct_mults,
        **({"plaintexts": counts.plaintexts} if counts.plaintexts else {}),
        "key_bytes": cost.key_bytes,
        "upload_bytes": cost.upload_bytes,
        "download_bytes": cost.download_bytes,
    }


def counted_record(cost: Cost) -> Record:
    """The same of a plan that is not run, and what SEAL's table predicts: milliseconds, rotations at the top level.

    Steps of thousands of ciphertexts are sampled, and named.
    """
    parameters, milliseconds = cost.parameters, cost.predicted["tenseal"]
    rotation = cost_tables(parameters.ring_degree)["tenseal"]("rotation", parameters.top_level)
    sampled = (f"{step} {some} of {number}" for step, (some, number) in cost.sampled.items())
    return cost_record(cost) | {
        "input_ciphertexts": cost.input_ciphertexts,
        "keys": cost.key_count,
        "predicted_milliseconds": round(milliseconds, 1),
        "predicted_ratio_to_seal_rotation": round(milliseconds / rotation, 2),
        "sampled": ", ".join(sampled) or "nothing",
    }


def circuit_record(plan: Plan, circuit: Circuit) -> Record:
    """The same of a circuit that was made of a plan."""
    tables = cost_tables(plan.parameters.ring_degree)
    return counted_record(circuit_cost(circuit, plan.parameters, plan.input_level, tables))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, most and number of some values, most often times in seconds."""
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}


def known_records(path: Path) -> list[Record]:
    """Those that a file has; none where there is no file."""
    return list(json.loads(path.read_text())) if path.exists() else []


def save_records(records: Sequence[Record], path: Path) -> None:
    """Write records, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(records, indent=2) + "\n")
    temporary.replace(path)


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write records, and show all that they say."""
    save_records(records, path)
    console = Console()
    for record in records:
        table = Table.grid(padding=(0, 2))
        for name, value in record.items():
            table.add_row(name, _shown(value))
        console.print(table)
    console.print(f"written to {path}")


def write_table(records: Sequence[Record], keys: Sequence[str], path: Path) -> None:
    """Write many records, and show a line of each: what it has under some keys."""
    save_records(records, path)
    table = Table(*keys)
    for record in records:
        table.add_row(*(_shown(record.get(key, "")) for key in keys))
    console = Console()
    console = Console(width=max(console.width, _LEAST_WIDTH))
    console.print(table, f"written to {path}")


def _shown(value: Value) -> str:
    return " ".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else str(value)

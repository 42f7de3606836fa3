"""Records: flat, with the same names in every benchmark, so that tables and plots can be made of any of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TypeAlias

from rich.console import Console
from rich.table import Table

from heinfer.compiler.report import report
from heinfer.costs.cost import Cost
from heinfer.formats.bundle import Bundle

Value: TypeAlias = str | int | float | dict[str, float]
Record: TypeAlias = dict[str, Value]

_LEAST_WIDTH = 140
"""Of a table: a file or a pipe has no width, and broken columns help nobody."""


def plan_record(
    benchmark: str, bundle: Bundle, backend: str = "tenseal", threads: int = 1, rotations_hoisted: int = 0
) -> Record:
    """What a record says of a compiled model that runs on a backend.

    Args:
        rotations_hoisted: what ran hoisted: SEAL shares nothing between rotations, whatever the plan marks.
    """
    facts = report(bundle)
    named: Record = {
        "benchmark": benchmark,
        "network": facts.name,
        "policy": facts.policy,
        "backend": backend,
        "threads": threads,
    }
    return named | cost_record(facts) | {"rotations_hoisted": rotations_hoisted}


def cost_record(cost: Cost) -> Record:
    """What a record says of any cost; as on SEAL, which shares nothing between rotations, whatever the plan marks."""
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
        "plaintexts": counts.plaintexts,
        "key_bytes": cost.key_bytes,
        "upload_bytes": cost.upload_bytes,
        "download_bytes": cost.download_bytes,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, most and number of some values, most often times in seconds."""
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}


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


def show_table(records: Sequence[Record], columns: Mapping[str, str], path: Path) -> None:
    """Show a line of each of many records: what it has under some keys, with a heading for each."""
    table = Table(*columns.values())
    for record in records:
        table.add_row(*(_shown(record.get(key, "")) for key in columns))
    console = Console()
    console = Console(width=max(console.width, _LEAST_WIDTH))
    console.print(table, f"written to {path}")


def _shown(value: Value) -> str:
    return " ".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else str(value)

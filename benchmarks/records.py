"""Records: flat, with the same names in every benchmark, so that tables and plots can be made of any of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TypeAlias

from rich.console import Console
from rich.table import Table

from heinfer.formats.bundle import Bundle
from heinfer.report import report

Value: TypeAlias = str | int | float | dict[str, float]
Record: TypeAlias = dict[str, Value]


def plan_record(benchmark: str, bundle: Bundle) -> Record:
    """What a record says of a compiled model that runs on the tenseal backend, in one thread."""
    facts = report(bundle)
    counts = facts.counts
    return {
        "benchmark": benchmark,
        "network": facts.name,
        "policy": "heinfer",
        "backend": "tenseal",
        "threads": 1,
        "ring_degree": facts.ring_degree,
        "log_qp": round(facts.log_qp, 3),
        "levels": facts.levels,
        "rotations": counts.rotations,
        "rotations_hoisted": 0,  # what ran hoisted: SEAL shares nothing between rotations, whatever the plan marks
        "key_switches": counts.key_switches,
        "hma": counts.hma,
        "ct_ct_mults": counts.ct_ct_mults,
        "plaintexts": counts.plaintexts,
        "key_bytes": facts.key_bytes,
        "upload_bytes": facts.upload_bytes,
        "download_bytes": facts.download_bytes,
    }


def seconds_of(times: Sequence[float]) -> dict[str, float]:
    """Median, least, most and number of some times in seconds."""
    return {"median": median(times), "min": min(times), "max": max(times), "n": len(times)}


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write records, whole or not at all, and show them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(records, indent=2) + "\n")
    temporary.replace(path)
    console = Console()
    for record in records:
        table = Table.grid(padding=(0, 2))
        for name, value in record.items():
            shown = " ".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(name, shown)
        console.print(table)
    console.print(f"written to {path}")

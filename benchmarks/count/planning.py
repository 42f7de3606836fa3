"""planning: what it takes to plan networks of growing size; each in a process of its own, for the native backend."""

from __future__ import annotations

import time
from typing import Annotated

import torch
import typer
from rich.progress import track

from benchmarks.support.memory import peak_bytes
from benchmarks.support.options import Json
from benchmarks.support.processes import in_a_process
from benchmarks.support.records import Record, head, known_records, save_records, write_table
from benchmarks.support.scaling import SIZED
from heinfer.frontend import trace
from heinfer.network.folding import fold
from heinfer.network.joints import AffineSum
from heinfer.network.operators import Affine
from heinfer.planner.plan import LinearStep
from heinfer.planner.planner import SEARCH
from heinfer.planner.requirements import Requirements, table_for

BACKEND = "native"
_SHOWN = "network", "entries", "fold_seconds", "plan_seconds", "peak_mb", "ring_degree", "levels", "rotations", "hma"


def planning(
    json: Json,
    network: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Of a network; may be repeated.", show_default="all")
    ] = None,
) -> None:
    """Plan networks by channels, side and depth, and some that people bring: processor seconds, memory, counts.

    Counts are those of the plan, before operations that are the same are merged. Records of other networks stay, and
    are written as they come.
    """
    chosen = [number for number, one in enumerate(SIZED) if not network or one.name in network]
    names = {SIZED[number].name for number in chosen}
    records = [record for record in known_records(json) if record["network"] not in names]
    for number in track(chosen, description="planning"):
        records.append(_record(number))
        save_records(records, json)
    write_table(records, (*_SHOWN, "predicted_seconds", "failure"), json)


def _record(number: int) -> Record:
    """The record of one plan."""
    one = SIZED[number]
    about = head("planning", network=one.name, curve=one.curve, size=one.size, backend=BACKEND)
    return about | in_a_process(_planned, number)


def _planned(number: int) -> Record:
    """Fold and plan a network; processor seconds of one thread."""
    one = SIZED[number]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    traced = trace(one.build().eval(), one.shape)
    begun = time.process_time()
    folded = fold(traced)
    found = time.process_time()
    requirements = Requirements(backend=BACKEND)
    plan = SEARCH.plan(folded, requirements)
    seconds = time.process_time() - found
    peak = peak_bytes()
    maps = [node.operator.map for node in folded.nodes if isinstance(node.operator, Affine | AffineSum)]
    steps = [step.plan for step in plan.steps if isinstance(step, LinearStep)]
    shares = [step.problem.map.size / step.counts.hma / step.problem.source.slots for step in steps]
    return {
        "entries": sum(linear.size for linear in maps),
        "fold_seconds": round(found - begun, 2),
        "plan_seconds": round(seconds, 1),
        "peak_mb": round(peak / 1e6),
        "ring_degree": plan.parameters.ring_degree,
        "levels": plan.input_level,
        "rotations": sum(step.counts.rotations for step in steps),
        "hma": sum(step.counts.hma for step in steps),
        "share_of_slots": ", ".join(f"{share:.2f}" for share in shares),
        "predicted_seconds": round(plan.price(table_for(requirements, plan.parameters)) / 1000, 3),
    }

"""plan-by-backend: plans by SEAL's cost table and by the native backend's, and what both take natively."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.support.networks import RANDOM, random_network, scaled, shipped
from benchmarks.support.options import Json
from benchmarks.support.records import Record, head, save_records, spread, write_table
from benchmarks.support.timing import Timed
from heinfer.circuit.typed import TypedCircuit
from heinfer.compiler.report import report
from heinfer.costs.prediction import predict
from heinfer.costs.tables import cost_table
from heinfer.formats import bundle
from heinfer.formats.frames import keys_length
from heinfer.lowering.circuits import plan_circuit
from heinfer.measurement.native import NativeBench
from heinfer.planner.requirements import Requirements
from heinfer.zoo import bundle_path
from heinfer.zoo.reference import requirements_for

TABLES = ("tenseal", "native")
ROUNDS = 11

_SHOWN = "network", "cost_table", "key_switches", "rotations_hoisted", "hma", "key_bytes", "eval_cpu_seconds"


def plan_by_backend(
    json: Json, networks: Annotated[list[str] | None, typer.Option("--network", show_default="those that ship")] = None
) -> None:
    """Plan every network that ships by both cost tables, with random weights, and run both natively in turn."""
    records: list[Record] = []
    for name in networks or [path.stem for path in shipped()]:
        records += _compared(name)
        save_records(records, json)
    write_table(records, _SHOWN, json)


@dataclass(frozen=True, eq=False)
class _Planned:
    """A plan, and how to run it natively."""

    table: str
    typed: TypedCircuit
    timed: Timed

    @classmethod
    def by(cls, table: str, name: str) -> _Planned:
        plan, unscaled = plan_circuit(random_network(name), replace(_requirements(name), backend=table))
        typed = scaled(plan, unscaled)
        return cls(table, typed, Timed(NativeBench(plan.parameters, unscaled.steps()), typed))

    def record(self, name: str) -> Record:
        """What was planned, and what it took."""
        counts, parameters, keys = self.typed.counts, self.typed.parameters, self.typed.key_levels
        predicted = {
            table: sum(predict(self.typed.circuit, self.typed.levels, cost_table(parameters.ring_degree, table)))
            for table in TABLES
        }
        return head("plan-by-backend", network=name, backend="native", threads=1, weights=RANDOM) | {
            "cost_table": self.table,
            "ring_degree": parameters.ring_degree,
            "log_qp": round(parameters.log_qp, 3),
            "levels": self.typed.input_level,
            "input_ciphertexts": self.typed.circuit.inputs,
            "rotations": counts.rotations,
            "rotations_hoisted": self.timed.program.executed.rotations_hoisted,
            "key_switches": counts.key_switches,
            "hma": counts.hma,
            "keys": len(keys),
            "key_bytes": keys_length(parameters, keys),
            **{f"predicted_{table}_seconds": round(spent / 1000, 5) for table, spent in predicted.items()},
            "eval_cpu_seconds": spread(self.timed.cpu),
            "native_over_predicted": round(1000 * median(self.timed.cpu) / predicted["native"], 2),
        }


def _requirements(name: str) -> Requirements:
    """What the network that ships was compiled with: no more upload than it has."""
    requirements = requirements_for(name)
    upload = max(requirements.limits.upload_bytes, report(bundle.load(bundle_path(name))).upload_bytes)
    return replace(requirements, limits=replace(requirements.limits, upload_bytes=upload))


def _compared(name: str) -> list[Record]:
    both = [_Planned.by(table, name) for table in TABLES]
    for number in track(range(ROUNDS + 1), description=name):
        for planned in both:
            planned.timed.run()
            if not number:  # the first fills the caches
                planned.timed.forget()
    return [planned.record(name) for planned in both]

"""plans: what the planner chooses by SEAL's cost table and by the native backend's, and what both take natively."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from time import thread_time
from typing import Annotated

import torch
import typer
from rich.progress import track

from benchmarks.options import Json
from benchmarks.records import Record, save_records, show_table, spread
from benchmarks.untrained import SEED
from benchmarks.whole import scaled
from heinfer.backends.native import NativeProgram
from heinfer.circuit.typed import TypedCircuit
from heinfer.compiler.report import report
from heinfer.costs.prediction import predict
from heinfer.costs.tables import cost_table
from heinfer.formats import bundle
from heinfer.formats.frames import keys_length
from heinfer.frontend import trace
from heinfer.lowering.circuits import plan_circuit
from heinfer.measurement.machine import describe_machine, today
from heinfer.measurement.native import NativeBench
from heinfer.network.folding import fold
from heinfer.planner.plan import Plan
from heinfer.planner.requirements import Requirements
from heinfer.zoo import BUNDLES
from heinfer.zoo.reference import requirements_for
from heinfer.zoo.registry import reference

NETWORKS = ("mnist-ffconv", "mnist-plain", "lola-mnist", "lenet5-mnist", "cifar-fast", "cifar-accurate")
TABLES = ("tenseal", "native")
ROUNDS = 11

_COLUMNS = {
    "network": "network",
    "cost_table": "planned for",
    "ring_degree": "N",
    "levels": "levels",
    "key_switches": "key switches",
    "rotations_hoisted": "hoisted",
    "hma": "HMA",
    "keys": "keys",
    "predicted_native_seconds": "predicted, native",
    "eval_cpu_seconds": "measured, native",
    "predicted_tenseal_seconds": "predicted, SEAL",
}


def plans(
    json: Json, networks: Annotated[list[str] | None, typer.Option("--network", show_default="those that ship")] = None
) -> None:
    """Plan every network that ships by both cost tables, with random weights, and run both natively in turn."""
    records: list[Record] = []
    for name in networks or NETWORKS:
        records += _compared(name)
        save_records(records, json)
    show_table(records, _COLUMNS, json)


@dataclass(frozen=True, eq=False)
class _Planned:
    """A plan, and how to run it natively."""

    table: str
    plan: Plan
    typed: TypedCircuit
    bench: NativeBench
    program: NativeProgram

    @classmethod
    def by(cls, table: str, name: str) -> _Planned:
        torch.manual_seed(SEED)
        about = reference(name)
        folded = fold(trace(about.build().eval(), about.data.shape))
        plan, unscaled = plan_circuit(folded, replace(_requirements(name), backend=table))
        typed = scaled(plan, unscaled)
        bench = NativeBench(plan.parameters, unscaled.steps())
        return cls(table, plan, typed, bench, bench.encode(typed))

    def record(self, name: str, seconds: Sequence[float]) -> Record:
        counts, parameters, keys = self.typed.counts, self.typed.parameters, self.typed.key_levels
        predicted = {
            table: sum(predict(self.typed.circuit, self.typed.levels, cost_table(parameters.ring_degree, table)))
            for table in TABLES
        }
        return {
            "benchmark": "plans",
            "network": name,
            "backend": "native",
            "threads": 1,
            "weights": f"random, seed {SEED}",
            "cost_table": self.table,
            "ring_degree": parameters.ring_degree,
            "log_qp": round(parameters.log_qp, 3),
            "levels": self.typed.input_level,
            "input_ciphertexts": self.typed.circuit.inputs,
            "rotations": counts.rotations,
            "rotations_hoisted": self.program.executed.rotations_hoisted,
            "key_switches": counts.key_switches,
            "hma": counts.hma,
            "keys": len(keys),
            "key_bytes": keys_length(parameters, keys),
            **{f"predicted_{table}_seconds": round(spent / 1000, 5) for table, spent in predicted.items()},
            "eval_cpu_seconds": spread(seconds),
            "native_over_predicted": round(1000 * median(seconds) / predicted["native"], 2),
            "machine": describe_machine(),
            "date": today(),
        }


def _requirements(name: str) -> Requirements:
    """What the network that ships was compiled with: no more upload than it has."""
    requirements = requirements_for(name)
    upload = max(requirements.limits.upload_bytes, report(bundle.load(BUNDLES / f"{name}.heinfer")).upload_bytes)
    return replace(requirements, limits=replace(requirements.limits, upload_bytes=upload))


def _compared(name: str) -> list[Record]:
    both = [_Planned.by(table, name) for table in TABLES]
    inputs = [p.bench.encrypt(p.typed.circuit.inputs, p.typed.input_level, 1.0) for p in both]
    seconds: list[list[float]] = [[] for _ in both]
    for number in track(range(ROUNDS + 1), description=name):
        for planned, given, spent in zip(both, inputs, seconds, strict=True):
            started = thread_time()
            planned.bench.run(planned.program, given)
            if number:  # the first fills the caches
                spent.append(thread_time() - started)
    return [planned.record(name, spent) for planned, spent in zip(both, seconds, strict=True)]

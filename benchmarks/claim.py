"""claim: LoLa, Falcon, FFConv and the search side by side, each on the form of one network that it was made for."""

from __future__ import annotations

import json as json_format
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track

from benchmarks.counted import circuit_record, counted_record
from benchmarks.options import Json
from benchmarks.records import Record, save_records, show_table
from benchmarks.trained import accuracies
from benchmarks.whole import executed, scaled
from heinfer.baselines.names import Policy
from heinfer.baselines.planning import count_policy, plan_policy
from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.costs.tables import cost_table
from heinfer.frontend import trace
from heinfer.measurement.machine import describe_machine, today
from heinfer.measurement.tenseal import TensealBench
from heinfer.network.folding import fold
from heinfer.planner.parameters import choose_parameters
from heinfer.planner.plan import Plan
from heinfer.zoo.registry import reference

SEED = 0
SCALE = 2.0**26
ROTATIONS = 20
"""Of SEAL, for the unit of time."""
FEW_SWITCHES = 3000
"""Up to so many key switches a circuit is evaluated several times, and on SEAL too."""
EVALUATIONS = 5

_COLUMNS = {
    "data": "data",
    "policy": "policy",
    "network": "network",
    "accuracy": "accuracy",
    "ring_degree": "N",
    "levels": "levels",
    "rotations": "rotations",
    "hma": "HMA",
    "predicted_seconds": "SEAL, predicted",
    "tenseal_seconds": "SEAL",
    "native_cpu_seconds": "native, processor",
    "sampled": "sampled",
}


@dataclass(frozen=True)
class Case:
    """A network or form of one, under a policy.

    Attributes:
        degree: of the ring; None for the smallest that is secure. Another is counted and not run.
        runs: whether it is executed.
    """

    network: str
    policy: Policy
    degree: int | None = None
    runs: bool = True


CASES = (
    Case("lola-cifar", Policy.LOLA),
    Case("lola-cifar", Policy.LOLA, 16384, runs=False),
    *(Case(f"lola-cifar-falcon@{block}", Policy.FALCON, runs=block > 2) for block in (2, 4, 8, 16, 32, 64)),
    *(Case(f"lola-cifar-ffconv@{rank}", Policy.FFCONV, runs=rank in (16, 32)) for rank in (48, 32, 16, 12, 8, 4, 2)),
    Case("lola-cifar", Policy.HEINFER),
    *(Case(f"lola-cifar-ffconv@{rank}", Policy.HEINFER) for rank in (48, 32, 16, 8, 4)),
    Case("lola-cifar-falcon@4", Policy.HEINFER),
    Case("lola-mnist", Policy.LOLA),
    *(Case(f"lola-mnist-falcon@{block}", Policy.FALCON) for block in (4, 8, 16, 32)),
    Case("mnist-plain", Policy.LOLA),
    Case("mnist-ffconv", Policy.FFCONV),
    Case("lola-mnist", Policy.HEINFER),
    Case("mnist-plain", Policy.HEINFER),
    Case("mnist-ffconv", Policy.HEINFER),
)


def claim(
    json: Json,
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only of a network; records of others stay.", show_default="all"),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of an evaluation on native.")] = 2,
    memory: Annotated[float, typer.Option(min=0, help="Bytes for encoded constants on native.")] = 2e9,
    count: Annotated[bool, typer.Option("--count", help="Count and predict alone; nothing is executed.")] = False,
) -> None:
    """Count and execute every case, random weights: seconds do not depend on them. Accuracies are those of `trained`.

    On native every rotation is executed, but where a record says that it was only counted. On SEAL circuits of
    thousands of key switches are only predicted, by the shipped cost table.
    """
    known = json_format.loads(json.read_text()) if json.exists() else []
    records: dict[str, Record] = {_key(record): record for record in known}
    for case in track([case for case in CASES if not network or case.network in network], description="claim"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            record = pool.submit(_record, case, threads, memory, count).result()
        if not count or "native_seconds" not in records.get(_key(record), {}):
            records[_key(record)] = record
        save_records(list(_ordered(records)), json)
    show_table(list(_ordered(records)), _COLUMNS, json)


def _key(record: Record) -> str:
    return f"{record['network']} {record['policy']} {record['ring']}"


def _ordered(records: dict[str, Record]) -> Iterator[Record]:
    for case in CASES:
        key = f"{case.network} {case.policy.value} {_ring(case)}"
        if key in records:
            yield records[key]


def _ring(case: Case) -> str:
    return "smallest" if case.degree is None else str(case.degree)


def _record(case: Case, threads: int, memory: float, count: bool) -> Record:
    torch.manual_seed(SEED)
    about = reference(case.network)
    record: Record = {
        "benchmark": "claim",
        "data": about.data.name,
        "network": case.network,
        "policy": case.policy.value,
        "ring": _ring(case),
        "weights": f"random, seed {SEED}",
        "machine": describe_machine(),
        "date": today(),
    } | accuracies(case.network)
    network = fold(trace(about.build().eval(), about.data.shape))
    if case.policy.is_published and (count or not case.runs):
        ring = None if case.degree is None else choose_parameters(6, case.degree)
        counts = count_policy(network, case.policy, ring)
        return record | _predicted(counted_record(counts), counts.parameters)
    plan = plan_policy(network, case.policy)
    typed = scaled(plan)
    record |= _predicted(circuit_record(plan, typed.circuit), plan.parameters)
    return record if count else record | _run(plan, typed, about.data.shape, threads, memory)


def _run(plan: Plan, typed: TypedCircuit, shape: tuple[int, ...], threads: int, memory: float) -> Record:
    """Every rotation, on native; small circuits on SEAL as well."""
    (slots,) = plan.input.pack(np.random.default_rng(SEED).random((1, *shape)))
    small = typed.counts.key_switches <= FEW_SWITCHES
    ran = executed(plan, typed, slots, threads, memory, EVALUATIONS if small else 1)
    record: Record = {
        "threads": threads,
        "native_seconds": ran["eval_seconds"],
        "native_cpu_seconds": ran["eval_cpu_seconds"],
        "seal_rotation_seconds": round(_rotation_seconds(plan.parameters), 5),
        **{name: ran[name] for name in ("rotations", "key_switches", "hma", "peak_memory_bytes", "precision_bits")},
    }
    return record | ({"tenseal_seconds": _on_seal(typed)} if small else {})


def _on_seal(typed: TypedCircuit) -> float:
    """One evaluation, one thread."""
    circuit = typed.circuit
    bench = TensealBench(typed.parameters, circuit.steps())
    program = bench.encode(typed)
    inputs = bench.encrypt(circuit.inputs, typed.input_level, typed.input_scale)
    started = perf_counter()
    bench.run(program, inputs)
    return round(perf_counter() - started, 3)


def _predicted(record: Record, parameters: Parameters) -> Record:
    """With what the table predicts in its two units: seconds, and rotations of SEAL at the top level."""
    milliseconds = record.pop("predicted_milliseconds")
    assert isinstance(milliseconds, float)
    rotation = cost_table(parameters.ring_degree)("rotation", parameters.top_level)
    return record | {
        "predicted_seconds": round(milliseconds / 1000, 2),
        "predicted_rotations": round(milliseconds / rotation, 1),
    }


def _rotation_seconds(parameters: Parameters) -> float:
    """A rotation of SEAL at the top level."""
    bench = TensealBench(parameters, (1,))
    circuit = Circuit(parameters.slots, (Op(Kind.INPUT, input=0), Op(Kind.ROTATE, (0,), step=1)), (1,))
    program = bench.encode(TypedCircuit(circuit, parameters, parameters.top_level, SCALE))
    inputs = bench.encrypt(1, parameters.top_level, SCALE)
    seconds = []
    for _ in range(ROTATIONS):
        started = perf_counter()
        bench.run(program, inputs)
        seconds.append(perf_counter() - started)
    return median(seconds)

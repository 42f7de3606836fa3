"""forms: LoLa, Falcon, FFConv and the search side by side, each on the form of one network that it was made for."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.support.memory import peak_bytes
from benchmarks.support.networks import RANDOM, SEED, accuracies, random_network, scaled
from benchmarks.support.options import Json
from benchmarks.support.records import (
    Record,
    circuit_record,
    counted_record,
    head,
    known_records,
    save_records,
    spread,
    write_table,
)
from benchmarks.support.timing import Timed, seal_rotation
from heinfer.backends.native import NativeOptions, NativeProgram, NativeRing
from heinfer.baselines.names import Policy
from heinfer.baselines.planning import count_policy, plan_policy
from heinfer.circuit.interpret import run
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.secret import SecretSide
from heinfer.formats.seal_reader import read_ciphertext, read_key
from heinfer.formats.seal_writer import write_ciphertext
from heinfer.measurement.tenseal import TensealBench
from heinfer.planner.parameters import choose_parameters
from heinfer.planner.plan import Plan
from heinfer.zoo.registry import reference
from heinfer_cli.comparison import precision_bits

ROTATIONS = 20
"""Of SEAL, for the unit of time."""
FEW_SWITCHES = 3000
"""Up to so many key switches a circuit is evaluated several times, and on SEAL too."""
EVALUATIONS = 5

_SHOWN = "policy", "network", "accuracy", "ring_degree", "rotations", "hma", "predicted_milliseconds", "native_seconds"


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


def forms(
    json: Json,
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only of a network; records of others stay.", show_default="all"),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of an evaluation on native.")] = 2,
    memory: Annotated[float, typer.Option(min=0, help="Bytes for encoded constants on native.")] = 2e9,
    count: Annotated[bool, typer.Option("--count", help="Count and predict alone; nothing is executed.")] = False,
) -> None:
    """Count and execute every case, random weights: seconds do not depend on them.

    Accuracies are those of `trained-accuracy`.

    On native every rotation is executed, but where a record says that it was only counted. On SEAL circuits of
    thousands of key switches are only predicted, by the shipped cost table.
    """
    records = {_key(record): record for record in known_records(json)}
    for case in track([case for case in CASES if not network or case.network in network], description="forms"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            record = pool.submit(_record, case, threads, memory, count).result()
        if not count or "native_seconds" not in records.get(_key(record), {}):
            records[_key(record)] = record
        save_records(list(_ordered(records)), json)
    write_table(list(_ordered(records)), _SHOWN, json)


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
    data = reference(case.network).data
    record = head("forms", data=data.name, network=case.network, policy=case.policy.value, weights=RANDOM)
    record |= {"ring": _ring(case)} | accuracies(case.network)
    network = random_network(case.network)
    if case.policy.is_published and (count or not case.runs):
        ring = None if case.degree is None else choose_parameters(6, case.degree)
        return record | counted_record(count_policy(network, case.policy, ring))
    plan = plan_policy(network, case.policy)
    typed = scaled(plan)
    record |= circuit_record(plan, typed.circuit)
    return record if count else record | _run(plan, typed, data.shape, threads, memory)


def _run(plan: Plan, typed: TypedCircuit, shape: tuple[int, ...], threads: int, memory: float) -> Record:
    """Every rotation, on native; small circuits on SEAL as well."""
    (slots,) = plan.input.pack(np.random.default_rng(SEED).random((1, *shape)))
    small = typed.counts.key_switches <= FEW_SWITCHES
    rotation = seal_rotation(plan.parameters)
    for _ in range(ROTATIONS):
        rotation.run()
    record = executed(plan, typed, slots, threads, memory, EVALUATIONS if small else 1)
    record |= {"threads": threads, "seal_rotation_seconds": round(median(rotation.wall), 5)}
    if small:
        on_seal = Timed(TensealBench(plan.parameters, typed.circuit.steps()), typed)
        on_seal.run()
        record["tenseal_seconds"] = round(on_seal.wall[0], 3)
    return record


def executed(
    plan: Plan, typed: TypedCircuit, slots: NDArray[np.float64], threads: int, memory: float, evaluations: int = 1
) -> Record:
    """Run a circuit on the native backend; what it did and took, and the precision against cleartext."""
    circuit, parameters, level, scale = typed.circuit, typed.parameters, typed.input_level, typed.input_scale
    secret = SecretSide.generate(parameters)
    runtime = NativeProgram(typed, NativeRing.secure(parameters), NativeOptions(threads, memory))
    steps = ([0] if circuit.needs_relinearization else []) + list(circuit.steps())
    keys = runtime.load_keys(
        [read_key(secret.galois_key(s) if s else secret.relinearization_key(), parameters, s) for s in steps]
    )
    inputs = runtime.load_inputs([read_ciphertext(secret.encrypt(row, level, scale), parameters) for row in slots])
    seconds, processor = [], []
    for _ in range(evaluations):
        started, cpu_started = perf_counter(), process_time()
        outputs = runtime.save_outputs(runtime.run(inputs, keys))
        seconds.append(perf_counter() - started)
        processor.append(process_time() - cpu_started)
    decrypted = np.stack([secret.decrypt(write_ciphertext(output, parameters)).real for output in outputs])
    scores, exact = (plan.output.unpack(v[None])[0].reshape(-1) for v in (decrypted, run(circuit, slots[None])[0]))
    ran = runtime.executed
    return {
        "native_seconds": spread(seconds),
        "native_cpu_seconds": spread(processor),  # of all threads: it does not know of others on the machine
        "rotations": ran.rotations,
        "key_switches": ran.key_switches,
        "hma": ran.hma,
        "constant_bytes": runtime.constant_bytes,
        "peak_memory_bytes": peak_bytes(),
        "precision_bits": round(precision_bits(scores, exact), 2),
    }

"""lower-bound: what evaluating a shipped network takes at least on this machine, beside what it takes natively."""

from __future__ import annotations

from statistics import median

from rich.progress import track

from benchmarks.support.kernels import KernelSpeed, measure_kernels
from benchmarks.support.networks import shipped
from benchmarks.support.options import Json
from benchmarks.support.records import Record, plan_record, spread, write_table
from benchmarks.support.timing import Timed, seal_rotation
from heinfer.backends.memory import key_bytes
from heinfer.backends.native import NativePlan
from heinfer.backends.native.work import work_of_all
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer.measurement.native import NativeBench

ROUNDS = 15
THREADS = 2

_SHOWN = "network", "ratio_to_seal_rotation", "streamed_bytes", "lower_bound_seconds", "achieved_over_lower_bound"


def lower_bound(json: Json) -> None:
    """Time every shipped network natively, and the bytes and the arithmetic that no evaluation of it can do without."""
    write_table([_record(bundle.load(path)) for path in shipped()], _SHOWN, json)


def _record(model: Bundle) -> Record:
    """Evaluations on one thread and on several, each between rotations of SEAL."""
    parameters = model.typed.parameters
    bench, rotation = NativeBench(parameters, model.circuit.steps()), seal_rotation(parameters)
    alone, together = (Timed(bench, model.typed, bench.encode(model.typed, threads)) for threads in (1, THREADS))
    for run in (alone, together):
        run.run()
        run.forget()
    for _ in track(range(ROUNDS), description=model.manifest.name):
        for run in (alone, together):
            for timed in (rotation, run, rotation):
                timed.run()
    cpu, one, several = median(alone.cpu), median(alone.wall), median(together.wall)
    kernels, plan = measure_kernels(parameters), alone.program.plan
    return plan_record("lower-bound", model, "native", rotations_hoisted=alone.program.executed.rotations_hoisted) | {
        "instruction_set": bench.ring.instruction_set,
        "eval_seconds": spread(alone.wall),
        "eval_cpu_seconds": spread(alone.cpu),
        f"eval_seconds_{THREADS}_threads": spread(together.wall),
        "seal_rotation_seconds": spread(rotation.wall),
        "seal_rotation_cpu_seconds": spread(rotation.cpu),
        "ratio_to_seal_rotation": round(cpu / median(rotation.cpu), 2),
        f"ratio_to_seal_rotation_{THREADS}_threads": round(several / median(rotation.wall), 2),
        f"speedup_{THREADS}_threads": round(one / several, 2),
        "run_bytes": plan.run_bytes(),
        **_bound(plan, kernels, cpu),
        **kernels.record(),
    }


def _bound(plan: NativePlan, kernels: KernelSpeed, achieved: float) -> Record:
    """The larger of the time to read all keys and plaintexts once, and of the arithmetic in the nearest caches."""
    keys, plaintexts = key_bytes(plan.typed.parameters, plan.typed.key_levels, "native"), plan.constant_bytes
    work = work_of_all(plan.instructions, plan.residues)
    streaming, arithmetic = (keys + plaintexts) / kernels.bytes_a_second, kernels.seconds(work)
    return {
        "streamed_key_bytes": keys,
        "streamed_plaintext_bytes": plaintexts,
        "streamed_bytes": keys + plaintexts,
        "forward_transforms": work.forward,
        "inverse_transforms": work.inverse,
        "products": work.products,
        "streaming_seconds": float(f"{streaming:.4g}"),
        "arithmetic_seconds": float(f"{arithmetic:.4g}"),
        "lower_bound_seconds": float(f"{max(streaming, arithmetic):.4g}"),
        "achieved_over_lower_bound": round(achieved / max(streaming, arithmetic), 2),
    }

"""whole: LoLa's CIFAR-10 network as its authors lay it out, every one of its rotations ran."""

from __future__ import annotations

from time import perf_counter, process_time
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.memory import peak_bytes
from benchmarks.options import Json
from benchmarks.records import Record, spread, write_records
from heinfer.backends.native import NativeOptions, NativeProgram, NativeRing
from heinfer.baselines.names import Policy
from heinfer.baselines.planning import plan_policy
from heinfer.circuit.interpret import run
from heinfer.circuit.ir import Circuit
from heinfer.circuit.passes import remove_dead_code
from heinfer.circuit.passes.scales import Scales, assign_scales
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.secret import SecretSide
from heinfer.formats.residues import CiphertextFrame
from heinfer.formats.seal_reader import read_ciphertext, read_key
from heinfer.formats.seal_writer import write_ciphertext
from heinfer.frontend import trace
from heinfer.lowering.lower import lower
from heinfer.measurement.machine import describe_machine, today
from heinfer.network.folding import fold
from heinfer.planner.plan import Plan
from heinfer.zoo.registry import reference
from heinfer_cli.comparison import precision_bits

NETWORK = "lola-cifar"
SEED = 0
SCALE_BITS, OUTPUT_BITS = 26.0, 22.0
"""Not chosen for precision: calibration would hold the power of hundreds of thousands of values."""


def whole(
    json: Json,
    threads: Annotated[int, typer.Option(min=1, help="Of the evaluation.")] = 2,
    memory: Annotated[
        float, typer.Option(min=0, help="Bytes for encoded constants; others are encoded on the way.")
    ] = 2e9,
) -> None:
    """Execute LoLa's CIFAR-10 network under the policy `lola` on the native backend, one random image and weights.

    Takes some minutes, and 8 GB. The result is compared with the circuit in cleartext.
    """
    torch.manual_seed(SEED)
    about = reference(NETWORK)
    started = perf_counter()
    plan = plan_policy(fold(trace(about.build().eval(), about.data.shape)), Policy.LOLA)
    typed = scaled(plan)
    planned = perf_counter() - started
    image = np.random.default_rng(SEED).random((1, *about.data.shape))
    inputs = plan.input.pack(image)
    record: Record = {
        "benchmark": "whole",
        "network": NETWORK,
        "policy": Policy.LOLA.value,
        "backend": "native",
        "threads": threads,
        "weights": f"random, seed {SEED}",
        "ring_degree": plan.parameters.ring_degree,
        "log_qp": round(plan.parameters.log_qp, 3),
        "levels": plan.input_level,
        "input_ciphertexts": typed.circuit.inputs,
        "planning_seconds": round(planned, 1),
    }
    record |= executed(plan, typed, inputs[0], threads, memory)
    write_records([record | {"machine": describe_machine(), "date": today()}], json)


def scaled(plan: Plan, circuit: Circuit | None = None) -> TypedCircuit:
    """The circuit of a plan, or another that was made of it, with scales that do not depend on data."""
    circuit = circuit or remove_dead_code(lower(plan))
    bits = [SCALE_BITS] * len(circuit.layers)
    bits[circuit.ops[circuit.outputs[0]].layer] = OUTPUT_BITS
    return assign_scales(circuit, plan.parameters, plan.input_level, Scales(SCALE_BITS, tuple(bits)))


def executed(
    plan: Plan, typed: TypedCircuit, slots: NDArray[np.float64], threads: int, memory: float, evaluations: int = 1
) -> Record:
    """Run a circuit on the native backend; what it took, and the precision against cleartext."""
    circuit, parameters, level, scale = typed.circuit, typed.parameters, typed.input_level, typed.input_scale
    secret = SecretSide.generate(parameters)
    started = perf_counter()
    runtime = NativeProgram(typed, NativeRing.secure(parameters), NativeOptions(threads, memory))
    loaded = perf_counter() - started
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
    ran = runtime.executed
    return {
        "rotations": ran.rotations,
        "rotations_hoisted": ran.rotations_hoisted,
        "key_switches": ran.key_switches,
        "hma": ran.hma,
        "ct_ct_mults": ran.ct_ct_mults,
        "plaintexts": ran.plaintexts,
        "keys": len(steps),
        "loading_seconds": round(loaded, 1),
        "eval_seconds": spread(seconds),
        "eval_cpu_seconds": spread(processor),  # of all threads: it does not know of others on the machine
        "sampled": "nothing",
        "precision_bits": round(_bits(plan, circuit, slots, outputs, secret), 2),
        "constant_bytes": runtime.constant_bytes,
        "run_bytes": runtime.run_bytes,
        "peak_memory_bytes": peak_bytes(),
    }


def _bits(
    plan: Plan, circuit: Circuit, slots: NDArray[np.float64], outputs: list[CiphertextFrame], secret: SecretSide
) -> float:
    decrypted = np.stack([secret.decrypt(write_ciphertext(output, plan.parameters)).real for output in outputs])
    scores, expected = (plan.output.unpack(values[None])[0] for values in (decrypted, run(circuit, slots[None])[0]))
    return precision_bits(scores.reshape(-1), expected.reshape(-1))

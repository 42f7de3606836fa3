"""The report of a compiled model: everything a user may ask before paying for it."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from heinfer.circuit.annotate import annotate
from heinfer.circuit.counts import Counts, count_circuit, count_layers
from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.ckks.parameters import Parameters
from heinfer.formats.bundle import Bundle
from heinfer.formats.frames import ciphertexts_length, keys_length
from heinfer.planner.cost import CostTable, cost_table


@dataclass(frozen=True)
class LayerReport:
    """One layer: where its values are, how it is evaluated, what it costs."""

    name: str
    kernel: str
    layout_in: str
    layout_out: str
    level: int
    scale_bits: float
    counts: Counts
    milliseconds: float


@dataclass(frozen=True)
class Report:
    """A compiled model's costs; ``milliseconds`` are predicted by the cost table of ``backend``, one thread.

    ``peak_ciphertexts`` and ``memory_bytes`` are what a server holds for one request besides its code: live
    ciphertexts, encoded plaintexts and evaluation keys, in the backend's 64-bit words.
    """

    name: str
    backend: str
    ring_degree: int
    log_qp: float
    security_limit: int | None
    levels: int
    layers: tuple[LayerReport, ...]
    counts: Counts
    milliseconds: float
    key_count: int
    key_bytes: int
    upload_bytes: int
    download_bytes: int
    peak_ciphertexts: int
    memory_bytes: int


def report(bundle: Bundle, backend: str = "tenseal") -> Report:
    """Report on a bundle, for the named backend's cost table."""
    manifest, circuit = bundle.manifest, bundle.circuit
    parameters = manifest.to_parameters()
    cost = cost_table(parameters.ring_degree, backend)
    levels = [t.level for t in annotate(circuit, parameters, manifest.input.level, manifest.input.scale)]
    layers = _layers(circuit, parameters, bundle, cost)
    keys = manifest.keys
    peak = _peak_ciphertexts(circuit)
    word = 8 * parameters.ring_degree
    plaintexts = sum(word * (levels[n] + 1) for n, op in circuit if op.constant >= 0)
    key_count = len(keys.steps) + keys.relinearization
    key_words = 2 * len(parameters.primes) * len(parameters.data_primes) * key_count
    return Report(
        name=manifest.name,
        backend=backend,
        ring_degree=parameters.ring_degree,
        log_qp=parameters.log_qp,
        security_limit=parameters.security_limit,
        levels=manifest.input.level,
        layers=layers,
        counts=count_circuit(circuit),
        milliseconds=sum(layer.milliseconds for layer in layers),
        key_count=key_count,
        key_bytes=keys_length(parameters, steps=keys.steps, relinearization=keys.relinearization),
        upload_bytes=ciphertexts_length(
            parameters, count=manifest.input.layout.ciphertexts, level=manifest.input.level, seeded=True
        ),
        download_bytes=ciphertexts_length(
            parameters, count=manifest.output.layout.ciphertexts, level=manifest.output.level, seeded=False
        ),
        peak_ciphertexts=peak,
        memory_bytes=plaintexts + word * key_words + 2 * word * (manifest.input.level + 1) * peak,
    )


def _layers(circuit: Circuit, parameters: Parameters, bundle: Bundle, cost: CostTable) -> tuple[LayerReport, ...]:
    types = annotate(circuit, parameters, bundle.manifest.input.level, bundle.manifest.input.scale)
    reports = []
    for position, (layer, counts) in enumerate(zip(circuit.layers, count_layers(circuit), strict=True)):
        numbers = [number for number, op in circuit if op.layer == position]
        level_in = max(types[a].level for n in numbers for a in circuit.ops[n].args)
        spent = sum(_milliseconds(circuit.ops[n], types[circuit.ops[n].args[0]].level, cost) for n in numbers)
        reports.append(
            LayerReport(
                layer.name,
                layer.kernel,
                layer.layout_in,
                layer.layout_out,
                level_in,
                log2(types[numbers[-1]].scale),
                counts,
                spent,
            )
        )
    return tuple(reports)


_COST_OF = {
    Kind.ROTATE: ("rotation",),
    Kind.MULTIPLY_PLAIN: ("hma",),
    Kind.ADD: ("add",),
    Kind.MULTIPLY: ("square",),
    Kind.RELINEARIZE: ("relinearize",),
    Kind.RESCALE: ("rescale",),
    Kind.DROP_LEVEL: ("drop_level",),
}


def _milliseconds(op: Op, level: int, cost: CostTable) -> float:
    return sum(cost(name, level) for name in _COST_OF.get(op.kind, ()))


def _peak_ciphertexts(circuit: Circuit) -> int:
    """Most values alive at once."""
    ends = sorted(circuit.last_use.values())
    alive = peak = position = 0
    for number in range(len(circuit.ops)):
        alive += 1
        peak = max(peak, alive)
        while position < len(ends) and ends[position] <= number:
            alive -= 1
            position += 1
    return peak

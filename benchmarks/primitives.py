"""primitives: one homomorphic operation at a time, native beside SEAL: same run, ring, keys and ciphertexts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from rich.progress import track

from benchmarks.kernels import measure_kernels
from benchmarks.native_bench import SCALE, NativeBench
from benchmarks.options import Json
from benchmarks.records import Record, save_records, show_table, spread
from heinfer.backends.native.instructions import Division, Residues, Rotations, Sum, Target
from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.ckks.parameters import Parameters
from heinfer.measurement.machine import describe_machine, today

RINGS: Mapping[int, tuple[Sequence[int], int]] = {8192: ([28, *[26] * 5], 30), 16384: ([28, *[26] * 9], 30)}
"""Ring degree -> bits of the data primes and of the special prime."""

ROUNDS = 20
FEW, MANY = 4, 8
"""Operations in two circuits: the difference of their times is that of as many as there are more."""

HMA_VALUES, HMA_FEW, HMA_MANY = 16, 32, 64

_COLUMNS = {
    "primitive": "primitive",
    "ring_degree": "N",
    "levels": "levels",
    "native_seconds": "native",
    "seal_seconds": "SEAL",
    "ratio_to_seal": "times faster",
}


@dataclass(frozen=True)
class Probe:
    """A primitive: circuits with few and with many of it, how many more these are, and what SEAL does instead.

    Attributes:
        circuit: of a number of operations.
        few, many: these numbers.
        seal: name of the probe that SEAL's time is taken of; empty for the same.
        extended: rotations summed in the extended basis instead of the circuit.
    """

    circuit: Callable[[int, int], Circuit]
    few: int = FEW
    many: int = MANY
    seal: str = ""
    extended: bool = False


def rotations(slots: int, number: int) -> Circuit:
    """Rotations of one input that share nothing; the last one leaves the circuit."""
    return _unary(slots, number, lambda _, k: [Op(Kind.ROTATE, (0,), step=k + 1)])


def hoisted_rotations(slots: int, number: int) -> Circuit:
    """The same rotations with the digits shared."""
    return _unary(slots, number, lambda _, k: [Op(Kind.ROTATE, (0,), step=k + 1, hoist=0)])


def squares(slots: int, number: int) -> Circuit:
    """Squares of one input, relinearized."""
    return _unary(slots, number, lambda at, _: [Op(Kind.MULTIPLY, (0, 0)), Op(Kind.RELINEARIZE, (at,))])


def rescales(slots: int, number: int) -> Circuit:
    """Rescales of one input."""
    return _unary(slots, number, lambda _at, _k: [Op(Kind.RESCALE, (0,))])


def products(slots: int, number: int) -> Circuit:
    """A sum of products of several inputs with constants, every one of its own."""
    constants = tuple(np.random.default_rng(0).uniform(-1, 1, (number, slots)))
    ops = [Op(Kind.INPUT, input=k) for k in range(HMA_VALUES)]
    total = -1
    for k in range(number):
        ops.append(Op(Kind.MULTIPLY_PLAIN, (k % HMA_VALUES,), constant=k, scale=SCALE))
        if total >= 0:
            ops.append(Op(Kind.ADD, (total, len(ops) - 1)))
        total = len(ops) - 1
    return Circuit(slots, tuple(ops), (total,), constants)


PROBES: Mapping[str, Probe] = {
    "rotation": Probe(rotations),
    "hoisted rotation": Probe(hoisted_rotations, seal="rotation"),
    "double-hoisted rotation": Probe(rotations, seal="rotation", extended=True),
    "hma": Probe(products, HMA_FEW, HMA_MANY),
    "square and relinearization": Probe(squares),
    "rescale": Probe(rescales),
}


def primitives(json: Json) -> None:
    """Time rotations, hoisted and double-hoisted ones, fused multiply-adds, squares and rescales beside SEAL's."""
    records = [record for degree in RINGS for record in _measured(degree)]
    save_records(records, json)
    show_table(records, _COLUMNS, json)


def _measured(degree: int) -> Iterator[Record]:
    """Records of one ring: every round runs all probes on both, so that what changes touches all alike."""
    data_bits, special_bits = RINGS[degree]
    parameters = Parameters.create(degree, data_bits, special_bits)
    kernels = measure_kernels(parameters)
    bench = NativeBench(parameters, range(1, MANY + 1), HMA_VALUES)
    runs = {
        (backend, name, number): _run(bench, backend, probe, number)
        for name, probe in PROBES.items()
        for backend in ("native", "seal")
        for number in (probe.few, probe.many)
        if backend == "native" or not probe.seal
    }
    times: dict[tuple[str, str, int], list[float]] = {key: [] for key in runs}
    for call in runs.values():
        call()
    for _ in track(range(ROUNDS), description=f"N = {degree}"):
        for key, call in runs.items():
            times[key].append(call())
    for name, probe in PROBES.items():
        native = _differences(times, "native", name, probe)
        seal = _differences(times, "seal", probe.seal or name, PROBES[probe.seal or name])
        yield {
            "benchmark": "primitives",
            "primitive": name,
            "backend": "native",
            "instruction_set": bench.ring.instruction_set,
            "threads": 1,
            "ring_degree": degree,
            "log_qp": round(parameters.log_qp, 3),
            "levels": parameters.top_level,
            "native_seconds": spread(native),
            "seal_seconds": spread(seal),
            "ratio_to_seal": round(median(seal) / median(native), 2),
            **kernels.record(),
            "machine": describe_machine(),
            "date": today(),
        }


def _run(bench: NativeBench, backend: str, probe: Probe, number: int) -> Callable[[], float]:
    if probe.extended:
        return _extended(bench, number)
    circuit = probe.circuit(bench.parameters.slots, number)
    return bench.native(circuit) if backend == "native" else bench.seal(circuit)


def _extended(bench: NativeBench, number: int) -> Callable[[], float]:
    """Rotations of one input, summed in the extended basis and divided once."""
    rows = bench.parameters.top_level + 1
    total, out = number + 1, number + 2
    residues = [Residues(rows), *[Residues(rows + 1, extended=True)] * (number + 1), Residues(rows)]
    targets = tuple(Target(step, step) for step in range(1, number + 1))
    added = Sum(total, addends=tuple(range(1, number + 1)))
    shell = Circuit(bench.parameters.slots, (Op(Kind.INPUT, input=0),), (out,))
    return bench.native_instructions(shell, residues, [Rotations(0, targets, exact=False), added, Division(out, total)])


def _differences(
    times: Mapping[tuple[str, str, int], Sequence[float]], backend: str, name: str, probe: Probe
) -> list[float]:
    """Seconds of one operation, by round."""
    few, many = times[backend, name, probe.few], times[backend, name, probe.many]
    return [(more - less) / (probe.many - probe.few) for less, more in zip(few, many, strict=True)]


def _unary(slots: int, number: int, ops_of: Callable[[int, int], Sequence[Op]]) -> Circuit:
    """Operations on one input, `ops_of(number of the first, which)`; the last result leaves the circuit."""
    ops = [Op(Kind.INPUT, input=0)]
    for k in range(number):
        ops += ops_of(len(ops), k)
    return Circuit(slots, tuple(ops), (len(ops) - 1,))

"""primitives: one homomorphic operation at a time, native beside SEAL, in one run and one ring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from rich.progress import track

from benchmarks.support.kernels import measure_kernels
from benchmarks.support.options import Json
from benchmarks.support.records import Record, head, spread, write_table
from benchmarks.support.timing import SCALE, Timed
from heinfer.backends.native import NativeKeys, NativePlan, NativeRing
from heinfer.backends.native.instructions import Division, Residues, Rotations, Sum, Target
from heinfer.backends.native.library import library
from heinfer.backends.native.plan import plan_instructions
from heinfer.backends.native.ring import Words
from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.measurement.measure import Bench
from heinfer.measurement.native import NativeBench
from heinfer.measurement.tenseal import TensealBench

RINGS: Mapping[int, tuple[Sequence[int], int]] = {8192: ([28, *[26] * 5], 30), 16384: ([28, *[26] * 9], 30)}
"""Ring degree -> bits of the data primes and of the special prime."""

ROUNDS = 20
FEW, MANY = 4, 8
"""Operations in two circuits: the difference of their times is that of as many as there are more."""

HMA_VALUES, HMA_FEW, HMA_MANY = 16, 32, 64

_SHOWN = "primitive", "ring_degree", "levels", "native_seconds", "seal_seconds", "ratio_to_seal"


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
    write_table(records, _SHOWN, json)


def _measured(degree: int) -> Iterator[Record]:
    """Records of one ring: every round runs all probes on both, so that what changes touches all alike."""
    data_bits, special_bits = RINGS[degree]
    parameters = Parameters.create(degree, data_bits, special_bits)
    kernels = measure_kernels(parameters)
    native_bench = NativeBench(parameters, range(1, MANY + 1))
    benches: Mapping[str, Bench] = {"native": native_bench, "seal": TensealBench(parameters, range(1, MANY + 1))}
    runs = {
        (backend, name, number): _timed(bench, probe, number)
        for name, probe in PROBES.items()
        for backend, bench in benches.items()
        for number in (probe.few, probe.many)
        if backend == "native" or not probe.seal
    }
    times: dict[tuple[str, str, int], list[float]] = {key: [] for key in runs}
    for timed in runs.values():
        timed.run()
    for _ in track(range(ROUNDS), description=f"N = {degree}"):
        for key, timed in runs.items():
            times[key].append(_seconds(timed))
    for name, probe in PROBES.items():
        native = _differences(times, "native", name, probe)
        seal = _differences(times, "seal", probe.seal or name, PROBES[probe.seal or name])
        yield head("primitives", primitive=name, backend="native", threads=1) | {
            "instruction_set": native_bench.ring.instruction_set,
            "ring_degree": degree,
            "log_qp": round(parameters.log_qp, 3),
            "levels": parameters.top_level,
            "native_seconds": spread(native),
            "seal_seconds": spread(seal),
            "ratio_to_seal": round(median(seal) / median(native), 2),
            **kernels.record(),
        }


def _timed(bench: Bench, probe: Probe, number: int) -> Timed:
    parameters = bench.parameters
    if probe.extended:
        assert isinstance(bench, NativeBench)
        return _extended(bench, number)
    circuit = probe.circuit(parameters.slots, number)
    return Timed(bench, TypedCircuit(circuit, parameters, parameters.top_level, SCALE))


def _extended(bench: NativeBench, number: int) -> Timed:
    """Rotations of one input, summed in the extended basis and divided once."""
    parameters, rows = bench.parameters, bench.parameters.top_level + 1
    total, out = number + 1, number + 2
    residues = [Residues(rows), *[Residues(rows + 1, extended=True)] * (number + 1), Residues(rows)]
    targets = tuple(Target(step, step) for step in range(1, number + 1))
    added = Sum(total, addends=tuple(range(1, number + 1)))
    shell = Circuit(parameters.slots, (Op(Kind.INPUT, input=0),), (out,))
    typed = TypedCircuit(shell, parameters, parameters.top_level, SCALE)
    plan = plan_instructions(typed, residues, [Rotations(0, targets, exact=False), added, Division(out, total)])
    return Timed(bench, typed, _Instructions(plan, bench.ring))


class _Instructions:
    """Instructions of no circuit, without constants, in the place of a program."""

    def __init__(self, plan: NativePlan, ring: NativeRing) -> None:
        layout = plan.value_array, plan.code_array, plan.inputs, plan.typed.circuit.outputs, plan.arena.rows
        self._program = library().Program(ring.handle, *layout)
        self._program.load([], [], 1)

    def run(self, inputs: Sequence[tuple[Words, Words]], keys: NativeKeys) -> None:
        """On one thread."""
        rows = [half for pair in inputs for half in pair]
        self._program.run(rows, keys.handle, 1, library().Control())


def _seconds(timed: Timed) -> float:
    """Of a second run: what was measured before it has filled the caches with something else."""
    timed.run()
    return timed.run()


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

"""Circuits on a bench, timed; and the unit of time: one rotation by the SEAL that is in tenseal."""

from __future__ import annotations

from time import perf_counter, thread_time
from typing import Any

from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.measurement.measure import Bench
from heinfer.measurement.tenseal import TensealBench

SCALE = 2.0**12
"""Times do not depend on values."""


class Timed:
    """A circuit on a bench, its program and inputs made, and the seconds of its evaluations so far.

    Args:
        program: of the circuit, where it is not the one that the bench makes.

    Attributes:
        wall: seconds of each evaluation.
        cpu: those for which this thread had the processor, which is what calibration measures.
    """

    def __init__(self, bench: Bench, typed: TypedCircuit, program: Any = None) -> None:
        self._bench = bench
        self.program = program or bench.encode(typed)
        self._inputs = bench.encrypt(typed.circuit.inputs, typed.input_level, typed.input_scale)
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def run(self) -> float:
        """Evaluate once more; the seconds of the processor."""
        started, cpu_started = perf_counter(), thread_time()
        self._bench.run(self.program, self._inputs)
        self.cpu.append(thread_time() - cpu_started)
        self.wall.append(perf_counter() - started)
        return self.cpu[-1]

    def forget(self) -> None:
        """Forget the times so far: those that filled the caches."""
        self.wall.clear()
        self.cpu.clear()


def seal_rotation(parameters: Parameters) -> Timed:
    """A rotation at the top level; its key is there, so that SEAL does not compose it of several."""
    circuit = Circuit(parameters.slots, (Op(Kind.INPUT, input=0), Op(Kind.ROTATE, (0,), step=1)), (1,))
    return Timed(TensealBench(parameters, (1,)), TypedCircuit(circuit, parameters, parameters.top_level, SCALE))

"""Evaluations of a compiled model, timed beside the unit of time: a rotation of SEAL at the top level."""

from __future__ import annotations

from time import perf_counter, thread_time

from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.typed import TypedCircuit
from heinfer.formats.bundle import Bundle
from heinfer.measurement.tenseal import TensealBench


class Evaluations:
    """A model's program, keys, and the seconds of its evaluations so far.

    Attributes:
        wall: seconds of each evaluation.
        cpu: those for which it had the processor, which is what calibration measures: others take some of the rest.
        rotations: seconds of the processor of one rotation at the top level, before and after each evaluation.
    """

    def __init__(self, model: Bundle) -> None:
        self._circuit, self._input = model.circuit, model.manifest.input
        parameters, steps = model.typed.parameters, model.circuit.steps()
        self._bench = TensealBench(parameters, steps)
        self._program = self._bench.encode(model.typed)
        rotation = Circuit(parameters.slots, (Op(Kind.INPUT, input=0), Op(Kind.ROTATE, (0,), step=steps[0])), (1,))
        self._rotation = self._bench.encode(TypedCircuit(rotation, parameters, parameters.top_level, self._input.scale))
        self._rotated = self._bench.encrypt(1, parameters.top_level, self._input.scale)
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.rotations: list[float] = []

    def warm_up(self) -> None:
        """Evaluate once to fill the caches, and forget all times so far."""
        self.add()
        for times in (self.wall, self.cpu, self.rotations):
            times.clear()

    def add(self) -> None:
        """Evaluate once more, on fresh ciphertexts."""
        inputs = self._bench.encrypt(self._circuit.inputs, self._input.level, self._input.scale)
        self._rotate()
        started, cpu_started = perf_counter(), thread_time()
        self._bench.run(self._program, inputs)
        self.cpu.append(thread_time() - cpu_started)
        self.wall.append(perf_counter() - started)
        self._rotate()

    def _rotate(self) -> None:
        started = thread_time()
        self._bench.run(self._rotation, self._rotated)
        self.rotations.append(thread_time() - started)

"""prediction: the time that a cost table predicts for every model that ships, beside the time that it takes."""

from __future__ import annotations

from statistics import median
from time import perf_counter, thread_time

from rich.progress import track

from benchmarks.options import Json
from benchmarks.records import Record, plan_record, seconds_of, write_records
from heinfer.calibration.benches import open_bench
from heinfer.calibration.machine import describe_machine, today
from heinfer.calibration.measure import SWEEPS, Calibration
from heinfer.calibration.prediction import by_kind, predict
from heinfer.calibration.tenseal import TensealBench
from heinfer.circuit.annotate import annotate
from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer.planner.cost import cost_table
from heinfer.zoo import BUNDLES

EVALUATIONS = 4
"""After each sweep of the calibration."""


def prediction(json: Json) -> None:
    """Predict the time of every shipped model by a table calibrated in the same run, and by the shipped one."""
    paths = sorted(BUNDLES.glob("*.heinfer"))
    write_records([_compare(bundle.load(path)) for path in paths], json)


class _Evaluations:
    """A model's program, keys, and the seconds of its evaluations so far.

    Attributes:
        wall: seconds of each evaluation.
        cpu: those for which it had the processor, which is what calibration measures: others take some of the rest.
        rotations: seconds of the processor of one rotation at the top level, before and after each evaluation.
    """

    def __init__(self, model: Bundle) -> None:
        self._circuit, self._input = model.circuit, model.manifest.input
        parameters, steps = model.manifest.to_parameters(), model.circuit.steps()
        self._bench = TensealBench(parameters, steps)
        self._program = self._bench.encode(self._circuit, self._input.level, self._input.scale)
        rotation = Circuit(parameters.slots, (Op(Kind.INPUT, input=0), Op(Kind.ROTATE, (0,), step=steps[0])), (1,))
        self._rotation = self._bench.encode(rotation, parameters.top_level, self._input.scale)
        self._rotated = self._bench.encrypt(1, parameters.top_level, self._input.scale)
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.rotations: list[float] = []

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


def _compare(model: Bundle) -> Record:
    """Calibration and evaluations in turn, so that both meet the machine in the same states.

    A table of another machine cannot know the seconds of this one: in rotations at the top level it can be right.
    """
    manifest, circuit = model.manifest, model.circuit
    parameters = manifest.to_parameters()
    calibration, evaluations = Calibration(open_bench("tenseal", parameters.ring_degree)), _Evaluations(model)
    for _ in track(range(SWEEPS), description=manifest.name):
        for _level in calibration.sweep():
            pass
        for _ in range(EVALUATIONS):
            evaluations.add()
    types = annotate(circuit, parameters, manifest.input.level, manifest.input.scale)
    measured, rotation = median(evaluations.cpu), median(evaluations.rotations)
    record = plan_record("prediction", model) | {
        "machine": describe_machine(),
        "date": today(),
        "eval_seconds": seconds_of(evaluations.wall),
        "eval_cpu_seconds": seconds_of(evaluations.cpu),
        "seal_rotation_cpu_seconds": seconds_of(evaluations.rotations),
        "ratio_to_seal_rotation": round(measured / rotation, 2),
    }
    shipped = cost_table(parameters.ring_degree)
    for name, table in (("calibrated", calibration.table()), ("shipped", shipped)):
        milliseconds = predict(circuit, types, table)
        seconds = sum(milliseconds) / 1000
        in_rotations = 1000 * seconds / table("rotation", parameters.top_level)
        record |= {
            f"{name}_seconds": round(seconds, 4),
            f"{name}_over_measured": round(seconds / measured, 3),
            f"{name}_over_measured_in_rotations": round(in_rotations / (measured / rotation), 3),
            f"{name}_milliseconds": {kind: round(spent, 2) for kind, spent in by_kind(circuit, milliseconds).items()},
        }
    return record | {"shipped_machine": shipped.machine}

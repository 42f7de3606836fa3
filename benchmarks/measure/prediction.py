"""prediction: the time that a cost table predicts for every model that ships, beside the time that it takes."""

from __future__ import annotations

from statistics import median

from rich.progress import track

from benchmarks.support.networks import shipped
from benchmarks.support.options import Json
from benchmarks.support.records import Record, plan_record, spread, write_records
from benchmarks.support.timing import Timed, seal_rotation
from heinfer.costs.prediction import by_kind, predict
from heinfer.costs.tables import cost_table
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer.measurement.benches import open_bench
from heinfer.measurement.measure import SWEEPS, Calibration
from heinfer.measurement.tenseal import TensealBench

EVALUATIONS = 4
"""After each sweep of the calibration."""


def prediction(json: Json) -> None:
    """Predict the time of every shipped model by a table calibrated in the same run, and by the shipped one."""
    write_records([_compare(bundle.load(path)) for path in shipped()], json)


def _compare(model: Bundle) -> Record:
    """Calibration and evaluations in turn, so that both meet the machine in the same states.

    A table of another machine cannot know the seconds of this one: in rotations at the top level it can be right.
    """
    manifest, circuit, parameters = model.manifest, model.circuit, model.typed.parameters
    calibration = Calibration(open_bench("tenseal", parameters.ring_degree))
    evaluation, rotation = Timed(TensealBench(parameters, circuit.steps()), model.typed), seal_rotation(parameters)
    for _ in track(range(SWEEPS), description=manifest.name):
        for _level in calibration.sweep():
            pass
        for _ in range(EVALUATIONS):
            for timed in (rotation, evaluation, rotation):
                timed.run()
    measured, unit = median(evaluation.cpu), median(rotation.cpu)
    record = plan_record("prediction", model) | {
        "eval_seconds": spread(evaluation.wall),
        "eval_cpu_seconds": spread(evaluation.cpu),
        "seal_rotation_cpu_seconds": spread(rotation.cpu),
        "ratio_to_seal_rotation": round(measured / unit, 2),
    }
    shipped = cost_table(parameters.ring_degree)
    for name, table in (("calibrated", calibration.table()), ("shipped", shipped)):
        milliseconds = predict(model.circuit, model.typed.levels, table)
        seconds = sum(milliseconds) / 1000
        in_rotations = 1000 * seconds / table("rotation", parameters.top_level)
        record |= {
            f"{name}_seconds": round(seconds, 4),
            f"{name}_over_measured": round(seconds / measured, 3),
            f"{name}_over_measured_in_rotations": round(in_rotations / (measured / unit), 3),
            f"{name}_milliseconds": {kind: round(spent, 2) for kind, spent in by_kind(circuit, milliseconds).items()},
        }
    return record | {"shipped_machine": shipped.machine}

"""constants: evaluations natively where memory does not suffice for all constants, of coefficients and of slots."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from statistics import median
from typing import Annotated
from unittest.mock import patch

import numpy as np
import typer
from rich.progress import track

from benchmarks.measure.limited import LIMITED_SHOWN, limited_records
from benchmarks.support.networks import shipped
from benchmarks.support.options import Json
from benchmarks.support.records import Record, known_records, plan_record, save_records, spread, write_table
from benchmarks.support.timing import Timed
from heinfer.backends.native import NativeOptions, NativeProgram, native_plan
from heinfer.backends.native.instructions import Kept, Sum
from heinfer.circuit.ir import Circuit
from heinfer.costs.constants import constants_milliseconds
from heinfer.costs.prediction import predict
from heinfer.costs.tables import cost_table
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer.measurement.native import NativeBench
from heinfer.zoo import bundle_path

SHARES = 1.0, 0.3, 0.1
ROUNDS = 7
MADE_OF = "coefficients", "slots"
"""What constants are made of in a run; of slots all, as if no coefficient fitted 32 bits."""

_SHOWN = "network", "share", "made_of", "constant_bytes", "eval_cpu_seconds", "native_over_predicted"


def constants(
    json: Json,
    networks: Annotated[
        list[str] | None,
        typer.Option("--network", help="Only this one; records of others stay.", show_default="those that ship"),
    ] = None,
    sized: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Instead a network of benchmarks/support/scaling.py: compiled first, of random weights.",
        ),
    ] = None,
) -> None:
    """Evaluate every network under limits on the memory of its constants, in turn, one thread."""
    if sized:
        found: list[Record] = []
        for record in limited_records(sized):
            found.append(record)
            save_records(found, json)
        write_table(found, LIMITED_SHOWN, json)
        return
    records: dict[str, list[Record]] = {}
    for record in known_records(json):
        records.setdefault(str(record["network"]), []).append(record)
    for name in networks or [path.stem for path in shipped()]:
        records[name] = _records(bundle.load(bundle_path(name)))
        save_records([record for name in sorted(records) for record in records[name]], json)
    write_table([record for name in sorted(records) for record in records[name]], _SHOWN, json)


def _records(model: Bundle) -> list[Record]:
    typed = model.typed
    bench, whole = NativeBench(typed.parameters, model.circuit.steps()), native_plan(typed).constant_bytes
    timed: dict[tuple[float, str], Timed] = {}
    for share in SHARES:
        for made_of in MADE_OF[: 1 if share == 1 else 2]:
            unfit = patch("heinfer.backends.native.residents.fits", return_value=False)
            with unfit if made_of == "slots" else nullcontext():
                program = NativeProgram(typed, bench.ring, NativeOptions(1, share * whole))
            timed[share, made_of] = Timed(bench, typed, program)
    for number in track(range(ROUNDS + 1), description=model.manifest.name):
        for one in timed.values():
            one.run()
            if not number:  # the first fills the caches
                one.forget()
    return [_record(model, share, made_of, one) for (share, made_of), one in timed.items()]


def _record(model: Bundle, share: float, made_of: str, timed: Timed) -> Record:
    program, typed = timed.program, model.typed
    table = cost_table(typed.parameters.ring_degree, "native")
    operations = sum(predict(typed.circuit, typed.levels, table)) / 1000
    made = constants_milliseconds(program.plan, table) / 1000
    kept = Counter[Kept]()
    for instruction in program.plan.instructions:
        if isinstance(instruction, Sum):
            kept[instruction.kept] += instruction.constants
    return plan_record("constants", model, "native", rotations_hoisted=program.executed.rotations_hoisted) | {
        "share": share,
        "made_of": made_of if share < 1 else "nothing",
        "constant_bytes": program.constant_bytes,
        "run_bytes": program.run_bytes,
        **{f"kept_{of.name.lower()}": kept[of] for of in Kept},
        "periodic": periodic(model.circuit),
        "eval_seconds": spread(timed.wall),
        "eval_cpu_seconds": spread(timed.cpu),
        "predicted_operations_seconds": round(operations, 5),
        "predicted_constants_seconds": round(made, 5),
        "native_over_predicted": round(median(timed.cpu) / (operations + made), 2),
    }


def periodic(circuit: Circuit) -> int:
    """Constants of several values whose second half is their first once more."""
    vectors = [c for c in circuit.constants if c.size > 1]
    return sum(bool(np.array_equal(v[: v.size // 2], v[v.size // 2 :])) for v in vectors)

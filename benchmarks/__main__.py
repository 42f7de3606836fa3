"""python -m benchmarks: the benchmarks there are. A new one is a file in its room, and a name here."""

from __future__ import annotations

import typer

from benchmarks.count.forms import forms
from benchmarks.count.instructions import instructions
from benchmarks.count.planning import planning
from benchmarks.count.policies import policies
from benchmarks.count.sweep import sweep
from benchmarks.count.trained_accuracy import trained_accuracy
from benchmarks.draw.plots import example, layouts, plots
from benchmarks.foreign.command import polynomialize_foreign, train_foreign
from benchmarks.foreign.encrypted import foreign_encrypted
from benchmarks.measure.accuracy import accuracy
from benchmarks.measure.constants import constants
from benchmarks.measure.fairness import fairness
from benchmarks.measure.latency import latency
from benchmarks.measure.lower_bound import lower_bound
from benchmarks.measure.neighbour import neighbour
from benchmarks.measure.plan_by_backend import plan_by_backend
from benchmarks.measure.precision import precision
from benchmarks.measure.prediction import prediction
from benchmarks.measure.primitives import primitives
from benchmarks.measure.range import range_
from benchmarks.measure.service import service
from benchmarks.measure.startup import startup
from benchmarks.peers.comparison import peers
from benchmarks.recalibrate import recalibrate
from benchmarks.soak.command import soak
from benchmarks.soak.survive.command import survive
from benchmarks.torchvision.command import torchvision

ROOMS = {
    "Measure, on this machine": (
        latency,
        neighbour,
        accuracy,
        range_,
        foreign_encrypted,
        precision,
        prediction,
        plan_by_backend,
        lower_bound,
        constants,
        primitives,
        startup,
        service,
        fairness,
        peers,
    ),
    "Count: the same on every machine": (policies, forms, sweep, planning, trained_accuracy, instructions, torchvision),
    "Wear out a service": (soak, survive),
    "Draw": (plots, layouts, example),
    "Make anew": (recalibrate, train_foreign, polynomialize_foreign),
}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for room, commands in ROOMS.items():
    for command in commands:
        app.command(command.__name__.strip("_").replace("_", "-"), rich_help_panel=room)(command)

if __name__ == "__main__":
    app()

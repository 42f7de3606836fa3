"""python -m benchmarks: the benchmarks there are. One file each; a new one is a line here."""

from __future__ import annotations

import typer

from benchmarks.accuracy import accuracy
from benchmarks.claim import claim
from benchmarks.fairness import fairness
from benchmarks.floor import floor
from benchmarks.instructions import instructions
from benchmarks.latency import latency
from benchmarks.peers.comparison import peers
from benchmarks.plans import plans
from benchmarks.plots import example, layouts, plots
from benchmarks.prediction import prediction
from benchmarks.primitives import primitives
from benchmarks.range import range_
from benchmarks.recalibrate import recalibrate
from benchmarks.rotations import rotations
from benchmarks.service import service
from benchmarks.soak.command import soak
from benchmarks.startup import startup
from benchmarks.survive.command import survive
from benchmarks.sweep import sweep
from benchmarks.trained import trained
from benchmarks.whole import whole

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.command("accuracy")(accuracy)
app.command("claim")(claim)
app.command("example")(example)
app.command("fairness")(fairness)
app.command("floor")(floor)
app.command("instructions")(instructions)
app.command("layouts")(layouts)
app.command("latency")(latency)
app.command("peers")(peers)
app.command("plans")(plans)
app.command("prediction")(prediction)
app.command("primitives")(primitives)
app.command("range")(range_)
app.command("recalibrate")(recalibrate)
app.command("rotations")(rotations)
app.command("service")(service)
app.command("soak")(soak)
app.command("startup")(startup)
app.command("survive")(survive)
app.command("sweep")(sweep)
app.command("trained")(trained)
app.command("whole")(whole)
app.command("plots")(plots)

if __name__ == "__main__":
    app()

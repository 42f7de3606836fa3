"""recalibrate: choose bounds, scales and headroom of shipped bundles anew; weights, layouts and keys stay."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from benchmarks.support.networks import shipped
from heinfer.compiler.scaling import recalibrate as recalibrated
from heinfer.formats import bundle
from heinfer.zoo import bundle_path
from heinfer.zoo.reference import calibration_inputs


def recalibrate(
    networks: Annotated[list[str] | None, typer.Argument(show_default="all that ship")] = None,
) -> None:
    """Rewrite the bundles in the package, calibrated on the images that they were compiled on."""
    for name in networks or [path.stem for path in shipped()]:
        path = bundle_path(name)
        before = bundle.load(path)
        after = recalibrated(before, calibration_inputs(name))
        bundle.save(after, path)
        lower = np.log2(before.manifest.output.scale / after.manifest.output.scale)
        typer.echo(f"{name}: output scale lower by {lower:.3f} bits, {after.metadata['predicted precision']} predicted")

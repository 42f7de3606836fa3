"""recalibrate: ranges, scales and headroom of the shipped models, chosen anew on the images they were calibrated on."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from heinfer.formats import bundle
from heinfer.scaling import recalibrate as recalibrated
from heinfer.zoo.cifar import cifar10
from heinfer.zoo.data import MNIST, mnist
from heinfer.zoo.reference import CALIBRATION_IMAGES
from heinfer.zoo.registry import reference
from heinfer.zoo.shipped import BUNDLES, bundle_path


def recalibrate(
    networks: Annotated[list[str] | None, typer.Argument(help="Shipped models; all of them by default.")] = None,
) -> None:
    """Rewrite shipped bundles in place: layouts, keys and weights stay, and a report of each is printed in a line."""
    for name in networks or sorted(path.stem for path in BUNDLES.glob("*.heinfer")):
        path = bundle_path(name)
        data = reference(name).data
        images = (mnist if data == MNIST else cifar10)(None).train.images[:CALIBRATION_IMAGES]
        new = recalibrated(bundle.load(path), data.normalise(images).astype(np.float64))
        bundle.save(new, path)
        output = new.manifest.output
        typer.echo(
            f"{name}: scores up to {output.range:.1f} declared, {new.manifest.capacity:.1f} represented, "
            f"predicted precision {new.metadata['predicted precision']}"
        )

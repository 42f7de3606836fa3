"""heinfer compile: a trained reference network to a bundle."""

from __future__ import annotations

import resource
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.console import Console

from heinfer.cli.extras import needs
from heinfer.cli.options import DataDir
from heinfer.cli.report_table import print_report


def compile_network(
    network: Annotated[
        str, typer.Argument(metavar="NAME|CHECKPOINT", help="Network that `heinfer train` has trained, or its file.")
    ],
    out: Annotated[Path, typer.Option(help="File for the bundle.")],
    data_dir: DataDir = None,
) -> None:
    """Compile a trained reference network into a bundle, and report what running it will cost."""
    with needs("train"):
        from heinfer.formats import bundle
        from heinfer.zoo import NETWORKS
        from heinfer.zoo.checkpoint import read_metadata
        from heinfer.zoo.reference import compile_reference
        from heinfer.zoo.training import default_out

    checkpoint = default_out() / f"{network}.safetensors" if network in NETWORKS else Path(network)
    name = read_metadata(checkpoint).name
    started = perf_counter()
    compiled = compile_reference(name, checkpoint, data_dir)
    seconds = perf_counter() - started
    bundle.save(compiled.bundle, out)
    print_report(compiled.report, Console())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    typer.echo(f"{out}: {out.stat().st_size / 1000:.0f} kB, compiled in {seconds:.1f} s, peak memory {peak:.0f} MiB")

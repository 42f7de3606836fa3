"""heinfer compile: a trained reference network to a bundle."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
from rich.console import Console

from heinfer.baselines.names import Policy
from heinfer.circuit.precision import WANTED_BITS
from heinfer.errors import DataError, SettingError
from heinfer.extras import needs
from heinfer.planner.requirements import DEFAULT, MILLISECONDS_A_KEY, Limits, Objective, Requirements
from heinfer.system import peak_bytes
from heinfer_cli.options import Costs, CostsOf, DataDir, parse_bytes
from heinfer_cli.report_table import print_report

_OBJECTIVES = {objective.replace(" ", "-"): objective for objective in Objective}


def _objective(text: str) -> Objective:
    if text not in _OBJECTIVES:
        raise SettingError(f"there is no objective {text!r}: choose one of {', '.join(_OBJECTIVES)}")
    return _OBJECTIVES[text]


def _limit(of: str, default: str = "no limit") -> Any:
    return typer.Option(parser=parse_bytes, metavar="BYTES", help=of, show_default=default)


def compile_network(  # noqa: PLR0913 - one option for each choice
    network: Annotated[
        str, typer.Argument(metavar="NAME|CHECKPOINT", help="Network that `heinfer train` has trained, or its file.")
    ],
    out: Annotated[Path, typer.Option(help="File for the bundle.")],
    *,
    data_dir: DataDir = None,
    objective: Annotated[
        str, typer.Option(metavar="|".join(_OBJECTIVES), help="What the plan shall be cheap in.")
    ] = "time",
    batch: Annotated[int, typer.Option(help="Images that one request holds, a power of two.")] = 1,
    max_key_bytes: Annotated[float | None, _limit("Of all evaluation keys, such as 20MB.")] = None,
    max_upload_bytes: Annotated[float | None, _limit("Of one request.", "one ciphertext an image of a search")] = None,
    max_memory_bytes: Annotated[float | None, _limit("Of weights and a client's keys on a server.")] = None,
    key_price: Annotated[
        float, typer.Option(metavar="MS", help="Milliseconds that one evaluation key less is worth.")
    ] = MILLISECONDS_A_KEY,
    headroom: Annotated[
        int | None,
        typer.Option(
            metavar="BITS",
            help="To keep free for scores beyond those of calibration; a bit costs up to one of precision.",
            show_default="as many as leave 8 bits of precision, predicted at worst",
        ),
    ] = None,
    precision: Annotated[
        float,
        typer.Option(metavar="BITS", help="Of the scores of the worst of 200 images, predicted: no fewer are taken."),
    ] = WANTED_BITS,
    backend: CostsOf = None,
    costs: Costs = None,
    policy: Annotated[
        Policy, typer.Option(help="Who chooses layouts: the search, or a published method.")
    ] = Policy.HEINFER,
) -> None:
    """Compile a trained reference network into a bundle, and report what running it will cost."""
    with needs("train"):
        from heinfer.baselines.planning import planner_of
        from heinfer.compiler.progress import shown
        from heinfer.compiler.report import report
        from heinfer.formats import bundle
        from heinfer.zoo import NETWORKS
        from heinfer.zoo.checkpoint import read_metadata
        from heinfer.zoo.reference import compile_reference, requirements_for
        from heinfer.zoo.training import default_out

    requirements = Requirements(
        objective=_objective(objective),
        limits=Limits(
            key_bytes=inf if max_key_bytes is None else max_key_bytes,
            upload_bytes=inf if max_upload_bytes is None else max_upload_bytes,
            memory_bytes=inf if max_memory_bytes is None else max_memory_bytes,
        ),
        batch=batch,
        key_price=key_price,
        backend=backend or DEFAULT.backend,
        costs=costs,
        headroom=headroom,
        precision_bits=precision,
    )
    is_ours = network.partition("@")[0] in NETWORKS
    checkpoint = default_out() / f"{network}.safetensors" if is_ours else Path(network)
    try:
        name = read_metadata(checkpoint).name
    except DataError as error:
        if is_ours:
            raise
        raise DataError(
            f"{network} is no reference network and no file that `heinfer train` of this version wrote; "
            "a model of your own is compiled in Python, by heinfer.compile(): docs/your-model.md shows how"
        ) from error
    if max_upload_bytes is None and not policy.is_published:
        most = requirements_for(name).limits.upload_bytes * batch
        requirements = replace(requirements, limits=replace(requirements.limits, upload_bytes=most))
    started = perf_counter()
    compiled = compile_reference(name, checkpoint, data_dir, requirements, planner_of(policy))
    seconds = perf_counter() - started
    with shown(f"write {out}"):
        bundle.save(compiled.bundle, out)
    print_report(report(compiled.bundle, backend, costs), Console())
    typer.echo(
        f"{out}: {out.stat().st_size / 1000:.0f} kB, compiled in {seconds:.1f} s{_peak_memory(compiled.predicted_peak)}"
    )


def _peak_memory(predicted: int) -> str:
    """What this process has taken at most, in words, and what was predicted; nothing where the system does not say."""
    peak = peak_bytes()
    return f", peak memory {peak / 2**20:.0f} MiB, {predicted / 2**20:.0f} predicted" if peak else ""

"""heinfer calibrate: what a backend's operations cost on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from heinfer.errors import SettingError

if TYPE_CHECKING:
    from heinfer.costs.tables import CostTable


def calibrate(
    backend: Annotated[str, typer.Option(help="Backend to measure.")] = "tenseal",
    ring_degree: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="To measure; may be repeated.", show_default="4096 to 32768"),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON file for the cost tables.")] = None,
) -> None:
    """Measure what ciphertext operations cost on this machine, at every level.

    Takes seconds up to N = 8192, a minute at 16384, and 7 minutes and 5 GB at 32768; best on an idle machine.
    """
    from heinfer.costs.tables import save_costs
    from heinfer.measurement.benches import COMMON_RING_DEGREES, open_bench, require_measurable
    from heinfer.measurement.measure import SWEEPS, Calibration

    if out and not out.parent.is_dir():
        raise SettingError(f"{out}: there is no folder {out.parent}; make it first")
    degrees = sorted(set(ring_degree or COMMON_RING_DEGREES))
    require_measurable(backend, degrees)
    console, tables = Console(), []
    for degree in degrees:
        with _progress() as progress:
            task = progress.add_task(f"N = {degree}: making keys", total=None)
            calibration = Calibration(open_bench(backend, degree))
            progress.update(task, description=f"N = {degree}: measuring", total=SWEEPS * calibration.levels)
            for _ in range(SWEEPS):
                for _level in calibration.sweep():
                    progress.advance(task)
        tables.append(calibration.table())
        console.print(_shown(tables[-1]), "")
        if out:
            save_costs(tables, out)
    console.print(f"{tables[-1].machine}, {tables[-1].date}", highlight=False)
    if out:
        typer.echo(f"written to {out}")


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _shown(table: CostTable) -> Table:
    shown = Table(
        title=f"{table.backend}, N = {table.ring_degree}: milliseconds of one operation, one thread",
        caption="hma: product by a plaintext and its addition to a sum",
    )
    for name in ("level", *table.milliseconds):
        shown.add_column(name, justify="right")
    for level in range(table.levels):
        times = (row[level] for row in table.milliseconds.values())
        shown.add_row(str(level), *(f"{time:.3f}" if time else "" for time in times))
    return shown

"""heinfer plan: what a compiled model will cost, before it is paid."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from heinfer.cli.models import bundle_file
from heinfer.cli.options import Costs
from heinfer.cli.report_table import print_report


def plan(
    model: Annotated[str, typer.Argument(metavar="NAME|BUNDLE", help="Model that ships with heinfer, or a bundle.")],
    costs: Costs = None,
) -> None:
    """Report layouts, kernels and costs of a compiled model; makes no key and runs nothing."""
    from heinfer.formats import bundle
    from heinfer.report import report

    print_report(report(bundle.load(bundle_file(model)), costs=costs), Console())

"""heinfer plan: what a compiled model will cost, before it is paid."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from heinfer.cli.key_table import print_key_curve
from heinfer.cli.models import bundle_file
from heinfer.cli.options import Costs
from heinfer.cli.report_table import print_report


def plan(
    model: Annotated[str, typer.Argument(metavar="NAME|BUNDLE", help="Model that ships with heinfer, or a bundle.")],
    costs: Costs = None,
) -> None:
    """Report layouts, kernels, costs and the key curve of a compiled model; makes no key and runs nothing."""
    from heinfer.formats import bundle
    from heinfer.key_curve import key_curve
    from heinfer.report import report

    compiled = bundle.load(bundle_file(model))
    print_report(report(compiled, costs=costs), Console())
    print_key_curve(key_curve(compiled, costs=costs), Console())

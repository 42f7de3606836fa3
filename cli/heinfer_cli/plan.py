"""heinfer plan: what a model will cost, before it is paid: one that is compiled, or a network under some policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from heinfer.baselines.names import Policy
from heinfer.extras import needs
from heinfer_cli.key_table import print_key_curve
from heinfer_cli.models import bundle_file
from heinfer_cli.options import Costs, CostsOf
from heinfer_cli.report_table import print_cost, print_report


def plan(
    model: Annotated[str, typer.Argument(metavar="NAME|BUNDLE", help="Model that ships with heinfer, or a bundle.")],
    backend: CostsOf = None,
    costs: Costs = None,
    policy: Annotated[
        Policy | None,
        typer.Option(
            help="Plan the reference network of that name anew, as a published method or the search would.",
            show_default="as it was compiled",
        ),
    ] = None,
) -> None:
    """Report layouts, kernels, costs and the key curve of a compiled model; makes no key and runs nothing."""
    if policy is None:
        _print_compiled(model, backend, costs)
    else:
        _print_planned(model, policy, backend, costs)


def _print_compiled(model: str, backend: str | None, costs: Path | None) -> None:
    from heinfer.compiler.key_curve import key_curve
    from heinfer.compiler.report import report
    from heinfer.formats import bundle

    compiled = bundle.load(bundle_file(model))
    facts = report(compiled, backend, costs)
    print_report(facts, Console())
    print_key_curve(key_curve(compiled, facts.backend, costs), Console())


def _print_planned(name: str, policy: Policy, backend: str | None, costs: Path | None) -> None:
    """Counts do not depend on weights, so the network has random ones."""
    with needs("train"):
        from heinfer.baselines.planning import planner_of
        from heinfer.compiler.report import shown_backend
        from heinfer.frontend import trace
        from heinfer.lowering.circuits import cost_of
        from heinfer.network.folding import fold
        from heinfer.planner.requirements import DEFAULT, Requirements
        from heinfer.zoo.registry import reference

    about = reference(name)
    folded = fold(trace(about.build(), about.data.shape))
    cost = cost_of(folded, Requirements(backend=backend or DEFAULT.backend, costs=costs), planner_of(policy))
    print_cost(name, policy.value, cost, backend or shown_backend(cost.predicted), Console())

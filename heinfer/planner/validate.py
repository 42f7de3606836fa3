"""Validator of plans: what the search, or a published method, has promised is looked at before it is lowered."""

from __future__ import annotations

from itertools import pairwise

from heinfer.errors import PlanError
from heinfer.layout.layout import Layout
from heinfer.network.ir import INPUT
from heinfer.planner.plan import LinearStep, Plan, ProductStep, SeriesStep, Step


def validate_plan(plan: Plan) -> None:
    """Refuse a plan that cannot be, by the name of the step.

    Raises:
        PlanError: when a step reads what is not made before it, or a tensor below its own level or in another layout
            than its kernel was planned for; when the factors of a product do not lie alike; when a tensor is never
            read; when the scores are not at level 0, or leave partial sums in unused slots.
    """
    slots, top = plan.parameters.slots, plan.parameters.top_level
    if plan.single_input.slots * plan.batch != slots:
        raise PlanError(f"the input has {plan.single_input.slots} slots, {slots} / {plan.batch} are there")
    if not plan.steps or not 1 <= plan.input_level <= top:
        raise PlanError(f"{len(plan.steps)} steps from level {plan.input_level}, the parameters give 1..{top}")
    layouts = {INPUT: plan.single_input}
    for position, step in enumerate(plan.steps):
        layouts[position] = _result(plan, step, layouts)
    read = {tensor for step in plan.steps for tensor in step.reads}
    for position, (step, _) in enumerate(pairwise(plan.steps)):
        if position not in read:
            raise PlanError(f"{step.name}: no step reads what it makes")
    last = plan.steps[-1]
    if last.level != last.depth:
        raise PlanError(f"{last.name}: the scores end at level {last.level - last.depth}, not 0")
    if layouts[len(plan.steps) - 1].has_free_slots:
        raise PlanError(f"{last.name}: the scores leave partial sums in unused slots")


def _result(plan: Plan, step: Step, layouts: dict[int, Layout]) -> Layout:
    """The layout of what a step makes."""
    if not step.reads or not set(step.reads) <= layouts.keys():
        raise PlanError(f"{step.name}: it reads the steps {step.reads}, and {len(layouts) - 1} come before it")
    least = min(plan.level_of(tensor) for tensor in step.reads)
    if not step.depth <= step.level <= least:
        raise PlanError(f"{step.name}: it works at level {step.level}, what it reads gives {step.depth}..{least}")
    if isinstance(step, ProductStep):
        return _product(step, [layouts[tensor] for tensor in step.reads])
    source = Layout.side_by_side([layouts[tensor] for tensor in step.reads])
    if isinstance(step, LinearStep):
        if step.plan.problem.source != source:
            raise PlanError(f"{step.name}: its kernel was planned for another layout of what it reads")
        return step.plan.target
    if len(step.reads) > 1:
        raise PlanError(f"{step.name}: a square reads one tensor, not {len(step.reads)}")
    if isinstance(step, SeriesStep) and (step.layout != source or source.has_free_slots):
        raise PlanError(f"{step.name}: its constants are for another layout of what it reads, or slots are not known")
    return source


def _product(step: ProductStep, factors: list[Layout]) -> Layout:
    if len(factors) != 2:
        raise PlanError(f"{step.name}: a product has two factors, not {len(factors)}")
    product = factors[0].times(factors[1].shifted(-step.shift))
    if product is None:
        raise PlanError(f"{step.name}: its factors do not lie alike, rotated by {step.shift}")
    return product

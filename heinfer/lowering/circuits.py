"""The circuit that will run, and what it costs: the one way from a folded network to either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from heinfer.circuit.ir import Circuit
from heinfer.circuit.passes import mark_hoisting, merge_common_subexpressions, remove_dead_code
from heinfer.circuit.passes.key_set import compose_rotations
from heinfer.costs.cost import Cost, circuit_cost
from heinfer.costs.tables import HOISTED, cost_tables
from heinfer.errors import CompileError, PlanError
from heinfer.formats.frames import key_length
from heinfer.lowering.lower import lower
from heinfer.network.ir import Network
from heinfer.planner.plan import Plan
from heinfer.planner.planner import SEARCH, Planner
from heinfer.planner.requirements import Requirements, table_for
from heinfer.planner.validate import validate_plan
from heinfer.tell import Tell, say_nothing

_KEY_FACTORS = (1, 10, 100, 1000)
"""By which keys become dearer, in turn, when there must not be more than so many."""


def plan_circuit(
    folded: Network,
    requirements: Requirements,
    planner: Planner = SEARCH,
    tell: Tell = say_nothing,
    planned: Callable[[Plan], None] | None = None,
) -> tuple[Plan, Circuit]:
    """The plan and its circuit with the keys that are worth shipping: the fastest that keeps to a limit on keys.

    Args:
        tell: is told what is done.
        planned: is given every plan before it is lowered.

    Raises:
        PlanError, CompileError: when there is none, or none that keeps to the limit on time that a limit on keys has.
    """
    plans: list[Plan] = []  # one at most: the first, which was made without a thought of a limit on keys

    def made(required: Requirements) -> tuple[Plan, Circuit]:
        tell("plan", 0, 0)
        plan = planner.plan(folded, required)
        if not plans:
            plans.append(plan)
        if planned:
            planned(plan)
        return plan, circuit_of(plan, requirements, planner, tell)

    def timed(plan: Plan, circuit: Circuit) -> tuple[float, Plan, Circuit]:
        return _milliseconds(plan, circuit, requirements), plan, circuit

    if requirements.limits.key_bytes == inf:
        return made(requirements)
    best: list[tuple[float, Plan, Circuit]] = []  # one at most: of all others the constants are not held
    refusals: list[CompileError] = []
    for factor in _KEY_FACTORS[:1] if planner.is_prescribed else _KEY_FACTORS:
        dearer = replace(
            requirements, key_price=factor * requirements.key_price, limits=replace(requirements.limits, key_bytes=inf)
        )  # rotations are composed afterwards, so the search need not keep to the limit
        try:
            best = [min([*best, timed(*made(dearer))], key=lambda way: way[0])]
        except CompileError as error:
            refusals.append(error)
    if not best:
        raise refusals[-1]
    milliseconds, plan, circuit = best[0]
    _require_time(milliseconds, plans[0], requirements, planner)
    return plan, circuit


_MORE_KEYS = (1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Times the bytes of a limit on keys under which a refusal looks for one that would do."""


def _require_time(milliseconds: float, unlimited: Plan, requirements: Requirements, planner: Planner) -> None:
    """Refuse what a limit on keys makes much slower than the plan that has all it wants; says which limit would do."""
    limits = requirements.limits
    least = unlimited.price(table_for(requirements, unlimited.parameters))
    if milliseconds <= limits.slowdown * least:
        return
    way_out = "raise the limit on keys"
    for factor in _MORE_KEYS:
        more = replace(requirements, limits=replace(limits, key_bytes=factor * limits.key_bytes))
        try:
            then = _milliseconds(unlimited, circuit_of(unlimited, more, planner), requirements)
        except CompileError:
            continue
        if then <= limits.slowdown * least:
            way_out += f": key_bytes = {factor * limits.key_bytes:.0f} gives {then:.0f} ms"
            break
    raise PlanError(
        f"with key_bytes = {limits.key_bytes:.0f} an evaluation takes {milliseconds:.0f} ms, predicted, which is "
        f"{milliseconds / least:.1f} times the {least:.0f} ms without that limit and more than slowdown = "
        f"{limits.slowdown:g} allows; {way_out}, or allow more with Limits(slowdown={milliseconds / least + 0.1:.1f})"
    )


def _milliseconds(plan: Plan, circuit: Circuit, requirements: Requirements) -> float:
    return _cost(plan, circuit, requirements).predicted[requirements.backend]


def circuit_of(plan: Plan, requirements: Requirements, planner: Planner = SEARCH, tell: Tell = say_nothing) -> Circuit:
    """Lower a plan, without repeats and dead code, and with no more keys than allowed; scales are left to others.

    Raises:
        PlanError: for a plan that cannot be; see heinfer.planner.validate.
        CompileError: when rotations cannot be composed of as few keys as are allowed.
    """
    validate_plan(plan)
    cost = table_for(requirements, plan.parameters)
    circuit = remove_dead_code(merge_common_subexpressions(lower(plan, tell)))
    price = -inf if planner.is_prescribed else requirements.key_price  # rotations as published, but for a limit
    composed = compose_rotations(
        circuit,
        plan.input_level,
        lambda level: cost("rotation", level),
        price,
        most_bytes=requirements.limits.key_bytes,
        key_bytes=lambda level: key_length(plan.parameters, level),
        hoisted=lambda level: cost(HOISTED, level),
    )
    return mark_hoisting(remove_dead_code(composed))


def cost_of(folded: Network, requirements: Requirements, planner: Planner = SEARCH) -> Cost:
    """What a folded network takes, without data to calibrate it on; what is prescribed is counted step by step.

    Raises:
        PlanError, CompileError: when there is no plan.
    """
    if planner.count is not None:
        return planner.count(folded, requirements)
    return _cost(*plan_circuit(folded, requirements, planner), requirements)


def _cost(plan: Plan, circuit: Circuit, requirements: Requirements) -> Cost:
    return circuit_cost(
        circuit, plan.parameters, plan.input_level, cost_tables(plan.parameters.ring_degree, requirements.costs)
    )

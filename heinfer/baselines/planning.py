"""Plans by policy: the search's, or what a published method prescribes (docs/ffconv.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from heinfer.baselines.layers import Layer, SquareLayer, layers_of, levels_of, unfactorized
from heinfer.baselines.methods import MethodStep, recipes_for
from heinfer.baselines.names import Policy
from heinfer.baselines.prescribed import prescribe
from heinfer.baselines.recipes import Recipe
from heinfer.baselines.slot_maps import SlotMap, Windows
from heinfer.circuit.counts import Counts
from heinfer.ckks.parameters import Parameters
from heinfer.costs.cost import Cost
from heinfer.costs.tables import CostTable, cost_tables
from heinfer.errors import LayoutError, PlanError
from heinfer.network.ir import Network
from heinfer.network.operators import Affine
from heinfer.planner.kernel.linear import LinearPlan
from heinfer.planner.parameters import choose_parameters, wider_parameters
from heinfer.planner.plan import LinearStep, Plan, SquareStep, square_price
from heinfer.planner.planner import SEARCH, Planner
from heinfer.planner.requirements import (
    DEFAULT,
    Limits,
    Needs,
    Requirements,
    ciphertext_bytes,
    key_bytes,
    plaintext_bytes,
    table_for,
)
from heinfer.planner.search.search import plan_network

SAMPLE = 1024
"""Ciphertexts of one step up to which counts are exact."""


def planner_of(policy: Policy) -> Planner:
    """Who makes plans under a policy."""
    if policy is Policy.HEINFER:
        return SEARCH

    def plan(network: Network, requirements: Requirements) -> Plan:
        return plan_policy(network, policy, requirements=requirements)

    def count(network: Network, requirements: Requirements) -> Cost:
        return count_policy(network, policy, requirements=requirements)

    return Planner(policy.value, plan, count if policy.is_published else None)


def plan_policy(
    network: Network, policy: Policy, parameters: Parameters | None = None, requirements: Requirements = DEFAULT
) -> Plan:
    """Plan a folded network as a policy has it; the plan is lowered, run and counted like any other.

    Args:
        network: Affine and Square nodes only, as heinfer.network.folding.fold returns.
        policy: who chooses layouts and kernels.
        parameters: by default the smallest secure ring with a level for every step of the plan, and enough slots.
        requirements: what the search minimises; a published method has no choice, and is refused beyond a limit.

    Raises:
        PlanError: when there is no plan, or it exceeds a limit.
    """
    if policy is Policy.HEINFER:
        return plan_network(network, parameters, requirements)
    _require_chain(network, policy)
    if policy is Policy.UNFACTORIZED:
        return plan_network(unfactorized(network), parameters, requirements)
    method = _Method.of(network, policy, parameters, requirements)
    steps = tuple(
        LinearStep(step.name, method.planned(step, level), level, (position - 1,))
        if isinstance(step, Recipe)
        else SquareStep(step.name, level, (position - 1,))
        for position, (step, level) in enumerate(method.with_levels())
    )
    plan = Plan(method.ring, len(steps), method.sent.layout(), method.sent.label, steps, requirements.batch)
    _require_limits(plan, policy, requirements.limits)
    return plan


def count_policy(
    network: Network,
    policy: Policy,
    parameters: Parameters | None = None,
    requirements: Requirements = DEFAULT,
    sample: int = SAMPLE,
) -> Cost:
    """Count a folded network under a published method without keeping its plan, sampling steps that are too large.

    Args:
        network, policy, parameters, requirements: as for plan_policy; limits are not looked at.
        sample: a step of more ciphertexts than this is planned for so many of them, evenly spread.

    Raises:
        PlanError: when there is no plan, or the policy is no published method.
    """
    _require_chain(network, policy)
    method = _Method.of(network, policy, parameters, requirements)
    rotations = hma = squares = 0
    tables = cost_tables(method.ring.ring_degree, requirements.costs)
    key_levels: dict[int, int] = {}
    sampled: dict[str, tuple[int, int]] = {}
    predicted = dict.fromkeys(tables, 0.0)
    ciphertexts = 0
    for step, level in method.with_levels():
        if isinstance(step, SquareLayer):
            squares += ciphertexts
            key_levels[0] = max(key_levels.get(0, 0), level)
            for backend, table in tables.items():
                predicted[backend] += ciphertexts * square_price(table, level)
            continue
        part, number = step.sampled(sample)
        plan = method.planned(part, level)
        ratio = number / sample if number else 1
        if number:
            sampled[step.name] = sample, number
        rotations += round(plan.counts.rotations * ratio)
        hma += round(plan.counts.hma * ratio)
        for backend, table in tables.items():
            predicted[backend] += plan.price(table, level) * ratio
        for key, at in plan.key_levels(level):
            key_levels[key] = max(key_levels.get(key, 0), at)
        ciphertexts = step.target.ciphertexts
    return Cost(
        parameters=method.ring,
        input_level=len(method.steps),
        output_level=0,
        counts=Counts(rotations=rotations, key_switches=rotations + squares, hma=hma, ct_ct_mults=squares),
        key_levels=key_levels,
        input_ciphertexts=method.sent.layout().ciphertexts,
        output_ciphertexts=ciphertexts,
        predicted=predicted,
        sampled=sampled,
    )


@dataclass(frozen=True, eq=False)
class _Method:
    """A published method applied to one network in one ring."""

    ring: Parameters
    requirements: Requirements
    sent: SlotMap | Windows
    steps: list[MethodStep]

    @classmethod
    def of(cls, network: Network, policy: Policy, parameters: Parameters | None, requirements: Requirements) -> _Method:
        if not policy.is_published:
            raise PlanError(f"{policy} is no published method: count the circuit of its plan")
        if not isinstance(network.nodes[0].operator, Affine):
            raise PlanError(f"{network.nodes[0].name}: fold the network first, it must start with an affine map")
        layers = layers_of(network, policy)
        why: LayoutError | None = None
        for ring in _rings(layers, policy, parameters):
            try:
                return cls(ring, requirements, *recipes_for(layers, ring.slots // requirements.batch))
            except LayoutError as error:
                why = error
        raise PlanError(f"policy {policy}: {why}; use a larger ring degree") from why

    @cached_property
    def costs(self) -> CostTable:
        return table_for(self.requirements, self.ring)

    def with_levels(self) -> Iterator[tuple[MethodStep, int]]:
        """Each step and the level of its inputs."""
        return zip(self.steps, range(len(self.steps), 0, -1), strict=True)

    def planned(self, recipe: Recipe, level: int) -> LinearPlan:
        return prescribe(recipe, self.costs, level)


def _rings(layers: list[Layer], policy: Policy, parameters: Parameters | None) -> Iterator[Parameters]:
    """The ring that was asked for, or the smallest secure one and the wider ones, in case of too few slots."""
    levels = levels_of(layers)
    if parameters and parameters.top_level < levels:
        raise PlanError(
            f"policy {policy} takes {levels} levels, masks included, and the parameters give {parameters.top_level}: "
            f"use a larger ring degree than {parameters.ring_degree}"
        )
    ring: Parameters | None = parameters or choose_parameters(levels)
    while ring:
        yield ring
        ring = None if parameters else wider_parameters(ring)


def _require_chain(network: Network, policy: Policy) -> None:
    for node, reads, position in zip(network.nodes, network.reads, range(len(network.nodes)), strict=True):
        if reads != (position - 1,):
            raise PlanError(
                f"policy {policy} takes chains, and {node.name} reads others than the one before it: use policy heinfer"
            )


def _require_limits(plan: Plan, policy: Policy, limits: Limits) -> None:
    ring = plan.parameters
    linear = [(step.plan, step.level) for step in plan.steps if isinstance(step, LinearStep)]
    keys = len(frozenset().union(*(p.keys for p, _ in linear))) + 1  # relinearization
    needs = Needs(
        key_bytes=keys * key_bytes(ring),
        upload_bytes=plan.input.ciphertexts * ciphertext_bytes(ring, plan.input_level),
        memory_bytes=keys * ring.seal_key_bytes + sum(p.counts.hma * plaintext_bytes(ring, n) for p, n in linear),
    )
    limit = needs.exceeded(limits)
    if limit:
        raise PlanError(
            f"policy {policy} has one plan, and it does not keep to the limit {limit} = {getattr(limits, limit):.0f}: "
            f"it takes {getattr(needs, limit)}; raise the limit to that"
        )

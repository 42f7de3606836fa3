"""Search over layouts: a beam over the layers of a folded network, cheapest predicted time first.

State: the layout of the one live tensor, and the keys in use. Each affine layer is tried from every
kept state to every candidate layout; a lower bound on its time discards most pairs before any cover
is solved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf

from heinfer.ckks.parameters import Parameters
from heinfer.errors import PlanError
from heinfer.layout.layout import Layout
from heinfer.network.ir import Network, Node
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, Square
from heinfer.planner.candidates import Candidate, input_candidates, output_candidates
from heinfer.planner.cost import CostTable, cost_table
from heinfer.planner.diagonals import DiagonalProblem, DiagonalSet
from heinfer.planner.linear import LinearPlan, diagonal_sets, least_milliseconds, linear_plans
from heinfer.planner.parameters import choose_parameters
from heinfer.planner.plan import LinearStep, Plan, SquareStep, Step

_BEAM = 5
_MILLISECONDS_A_KEY = 0.4
"""What one more Galois key may cost in time: keys are uploaded, stored and streamed."""


@dataclass(frozen=True, eq=False)
class _State:
    layout: Layout
    input: Candidate
    candidate: Candidate
    steps: tuple[Step, ...]
    milliseconds: float
    keys: frozenset[int]

    @property
    def price(self) -> float:
        return self.milliseconds + _MILLISECONDS_A_KEY * len(self.keys)


@dataclass(frozen=True, eq=False)
class _Problem:
    """One affine layer from one state to one candidate, with a lower bound on the price."""

    state: _State
    candidate: Candidate
    problem: DiagonalProblem
    least: float


def plan_network(network: Network, parameters: Parameters | None = None, backend: str = "tenseal") -> Plan:
    """Choose layouts and kernels for a folded network.

    Args:
        network: Affine and Square nodes only, as heinfer.network.folding.fold returns.
        parameters: by default the smallest secure ring with a level for every node.
        backend: whose cost table predicts the time.

    Raises:
        PlanError: when a layer has no plan; names the layer.
    """
    parameters = parameters or choose_parameters(len(network.nodes))
    _require_levels(network, parameters)
    cost = cost_table(parameters.ring_degree, backend)
    states = [
        _State(candidate.layout, candidate, candidate, (), 0.0, frozenset())
        for candidate in input_candidates(_first_map(network), parameters.slots)
    ]
    level = len(network.nodes)
    for node in network.nodes:
        states = _advance(states, node, cost, level)
        level -= 1
    best = min((s for s in states if not s.layout.has_free_slots), key=lambda s: s.price, default=None)
    if best is None:
        raise PlanError(f"{network.nodes[-1].name}: every plan leaves partial sums in the output's unused slots")
    return Plan(parameters, best.input.layout, best.input.label, best.steps, best.milliseconds)


def _first_map(network: Network) -> LinearMap:
    first = network.nodes[0]
    if not isinstance(first.operator, Affine):
        raise PlanError(f"{first.name}: fold the network first, it must start with an affine map")
    return first.operator.map


def _require_levels(network: Network, parameters: Parameters) -> None:
    needed, given = len(network.nodes), parameters.top_level
    if needed > given:
        late = network.nodes[given].name
        raise PlanError(
            f"{late} is layer {given + 1} of {needed} that take a level each, and the parameters give {given}: "
            f"use a larger ring degree than {parameters.ring_degree}, or a network with fewer layers"
        )


def _advance(states: list[_State], node: Node, cost: CostTable, level: int) -> list[_State]:
    match node.operator:
        case Square():
            return [_squared(state, node.name, cost, level) for state in states]
        case Affine(map=linear):
            return _beam(_linear_successors(states, node.name, linear, cost, level))
        case other:
            raise PlanError(f"{node.name}: fold the network first; {type(other).__name__} has no kernel")


def _squared(state: _State, name: str, cost: CostTable, level: int) -> _State:
    one = cost("square", level) + cost("relinearize", level) + cost("rescale", level)
    spent = state.milliseconds + state.layout.ciphertexts * one
    return replace(state, steps=(*state.steps, SquareStep(name)), milliseconds=spent)


def _linear_successors(states: list[_State], name: str, linear: LinearMap, cost: CostTable, level: int) -> list[_State]:
    problems: list[_Problem] = []
    refusals: list[str] = []
    for state in states:
        for candidate in output_candidates(linear, state.candidate, state.layout.slots):
            problem = DiagonalProblem(linear, state.layout, candidate.layout, candidate.folds)
            try:
                least = least_milliseconds(problem, problem.least_diagonals, cost, level)
            except PlanError as error:
                refusals.append(str(error))
            else:
                problems.append(_Problem(state, candidate, problem, state.price + least))
    if not problems:
        why = refusals[0] if refusals else f"no layout of {linear.out_shape} fits {states[0].layout.slots} slots"
        raise PlanError(f"{name}: {why}; use a larger ring degree")
    found: list[_State] = []
    for posed in sorted(problems, key=lambda p: p.least):
        for diagonals in diagonal_sets(posed.problem):
            least = least_milliseconds(posed.problem, len(diagonals.diagonals), cost, level)
            if posed.state.price + least < _worst_kept(found):
                successor = _successor(posed, diagonals, name, cost, level)
                if level > 1 or not successor.layout.has_free_slots:  # partial sums must not leave with the scores
                    found.append(successor)
        if posed.least >= _worst_kept(found):
            break
    return found


def _worst_kept(found: list[_State]) -> float:
    """Price above which a further state would not enter the beam."""
    kept = _beam(found)
    return kept[-1].price if len(kept) == _BEAM else inf


def _successor(problem: _Problem, diagonals: DiagonalSet, name: str, cost: CostTable, level: int) -> _State:
    state = problem.state

    def price(plan: LinearPlan) -> float:
        return plan.milliseconds(cost, level) + _MILLISECONDS_A_KEY * len(plan.keys - state.keys)

    last = level == 1  # the input starts at just the level that the network needs
    plan = min(linear_plans(diagonals, problem.candidate.label, last=last), key=price)
    spent = state.milliseconds + plan.milliseconds(cost, level)
    steps = (*state.steps, LinearStep(name, plan))
    return _State(plan.target, state.input, problem.candidate, steps, spent, state.keys | plan.keys)


def _beam(states: Iterable[_State]) -> list[_State]:
    """Keep the cheapest states, one for each layout."""
    kept: dict[Layout, _State] = {}
    for state in sorted(states, key=lambda s: s.price):
        kept.setdefault(state.layout, state)
    return list(kept.values())[:_BEAM]

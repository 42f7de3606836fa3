"""Search over layouts: a beam over the layers of a folded network, cheapest first.

A plan is made for every number of levels in which the network can be evaluated (neighbouring linear maps merged or
kept, :mod:`heinfer.planner.merging`), in the smallest secure ring and, where tensors overflow its slots, the next.
State: the layout of the one live tensor, the levels used and the keys in use. Each affine layer is tried from every
kept state to every candidate layout; lower bounds discard most pairs before any cover is solved, and a complete
plan discards every state that already costs more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import inf, prod

from heinfer.ckks.parameters import Parameters
from heinfer.errors import PlanError
from heinfer.layout.layout import Layout
from heinfer.network.ir import Network, Node
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine
from heinfer.planner.candidates import Candidate, input_candidates, output_candidates
from heinfer.planner.diagonals import DiagonalSet
from heinfer.planner.kernels import Kernel, Kernels
from heinfer.planner.linear import LinearPlan
from heinfer.planner.merging import Merging, map_of
from heinfer.planner.objective import (
    DEFAULT,
    Needs,
    Objective,
    Prices,
    Wishes,
    ciphertext_bytes,
    key_bytes,
    loaded_key_bytes,
    plaintext_bytes,
    prices,
    table_for,
)
from heinfer.planner.parameters import choose_parameters, smallest_parameters, wider_parameters
from heinfer.planner.plan import LinearStep, Plan, SquareStep, Step, square_price

_BEAM = 5
_POSED = 12
"""Kernels of one map that are solved, those of the lowest bounds."""
_REFINED = 4
"""Kernels for which sets of diagonals with more of a pattern are tried."""


@dataclass(frozen=True, eq=False)
class _State:
    """A plan of the first layers.

    Attributes:
        input: how the client sends the input.
        candidate: what the last layer was meant to produce; ``layout`` is what it does, moved or fuller.
        price: in the unit of the objective, keys and upload included.
        keys: Galois keys in use.
        plaintext_bytes: of all constants, encoded.
    """

    input: Candidate
    candidate: Candidate
    layout: Layout
    steps: tuple[Step, ...] = ()
    price: float = 0.0
    keys: frozenset[int] = frozenset()
    plaintext_bytes: int = 0


_States = list[_State]


def plan_network(network: Network, parameters: Parameters | None = None, wishes: Wishes = DEFAULT) -> Plan:
    """Choose layouts, kernels and what to merge for a folded network.

    Args:
        network: Affine and Square nodes only, as heinfer.network.folding.fold returns.
        parameters: by default a secure ring with a level for every layer of the plan.
        wishes: what the plan shall be good at.

    Raises:
        PlanError: when a layer has no plan; names the layer, or the limit and what it would take.
    """
    if not isinstance(network.nodes[0].operator, Affine):
        raise PlanError(f"{network.nodes[0].name}: fold the network first, it must start with an affine map")
    if wishes.objective is Objective.THROUGHPUT:
        return _best_batch(network, parameters, wishes)
    merging, kernels = Merging(network), Kernels()
    best: tuple[_State, _Search] | None = None
    failures: list[_Search] = []
    for ring, levels in _rings(merging, network, parameters, wishes.batch):
        to_beat = best[0].price if best else inf
        search = _Search(merging, kernels, ring, levels, wishes, prices(wishes, ring, levels), to_beat)
        found = search.run()
        if found:
            best = found, search
        elif not best:
            failures.append(search)
    if best is None:
        raise PlanError(_why(failures, network, parameters))
    state, search = best
    return Plan(search.ring, state.input.layout, state.input.label, state.steps, wishes.batch)


def _best_batch(network: Network, parameters: Parameters | None, wishes: Wishes) -> Plan:
    """The plan of the least time an image among batches of 1, 4, 16, ... up to the one wished for."""
    plans: list[Plan] = []
    batch, refusal = wishes.batch, None
    while batch:
        try:
            plans.append(plan_network(network, parameters, replace(wishes, objective=Objective.TIME, batch=batch)))
        except PlanError as error:
            refusal = error
        batch //= 4
    if not plans:
        raise refusal or PlanError("no batch has a plan")
    return min(plans, key=lambda plan: plan.price(table_for(wishes, plan.parameters)) / plan.batch)


def _rings(
    merging: Merging, network: Network, parameters: Parameters | None, batch: int
) -> Iterator[tuple[Parameters, int]]:
    """Rings with the levels to use of them: the smallest secure ones, and the next where a tensor overflows."""
    if parameters:
        yield from ((parameters, levels) for levels in merging.levels if levels <= parameters.top_level)
        return
    largest = max(prod(shape) for shape in (network.input_shape, *network.shapes)) * batch
    first = choose_parameters(merging.levels[0])  # PlanError when even the shallowest plan has no ring
    for levels in merging.levels:
        ring: Parameters | None = first if levels == merging.levels[0] else smallest_parameters(levels)
        if ring:
            yield ring, levels
            ring = wider_parameters(ring) if largest > ring.slots else None
        if ring:
            yield ring, levels


def _why(failures: list[_Search], network: Network, parameters: Parameters | None) -> str:
    if not failures and parameters:
        late = network.nodes[parameters.top_level] if parameters.top_level < len(network.nodes) else network.nodes[-1]
        return (
            f"{late.name} is layer {parameters.top_level + 1} of {len(network.nodes)} that take a level each, and the "
            f"parameters give {parameters.top_level}: use a larger ring degree than {parameters.ring_degree}, "
            "or a network with fewer layers"
        )
    refused = [search.refused for search in failures if search.refused]
    if refused:
        limit = next(iter(refused[0]))
        least = min(need[limit] for need in refused if limit in need)
        return (
            f"no plan keeps to the limit {limit} = {getattr(failures[0].limits, limit):.0f}: the search found none "
            f"that takes less than {least}; raise the limit to that"
        )
    return next(search.failure for search in failures if search.failure)


class _Search:
    """The search for one ring and one number of levels."""

    def __init__(
        self,
        merging: Merging,
        kernels: Kernels,
        ring: Parameters,
        levels: int,
        wishes: Wishes,
        prices: Prices,
        to_beat: float,
    ) -> None:
        self.merging = merging
        self.kernels = kernels
        self.ring = ring
        self.levels = levels
        self.slots = ring.slots // wishes.batch
        self.limits = wishes.limits
        self.prices = prices
        self.to_beat = to_beat
        self.refused: dict[str, int] = {}
        self.failure = ""

    def run(self) -> _State | None:
        """The cheapest complete plan that beats what there is, None when there is none."""
        at: dict[int, _States] = {0: []}  # states by the levels used
        for number, run in enumerate(self.merging.runs):
            after: defaultdict[int, _States] = defaultdict(list)
            for used, states in at.items():
                if isinstance(run, Node):
                    after[used + 1] += [self._squared(state, run.name, self.levels - used) for state in states]
                    continue
                for division in run:
                    if self._can_end(number + 1, used + len(division)):
                        after[used + len(division)] += self._through(
                            division, states, self.levels - used, first=number == 0
                        )
            at = {used: _beam(states) for used, states in after.items()}
        complete = (state for state in at.get(self.levels, []) if not state.layout.has_free_slots)
        return min(complete, key=lambda s: s.price, default=None)

    def _can_end(self, number: int, used: int) -> bool:
        """Whether the runs from that number on can use up exactly the levels that are left."""
        left = self.merging.levels_from(number)
        return used + left[0] <= self.levels <= used + left[-1]

    def _through(self, division: tuple[Node, ...], states: _States, level: int, *, first: bool) -> _States:
        """Take states through the maps of a division; the first of all starts from the inputs it suggests."""
        if first:
            states = list(self._inputs(map_of(division[0])))
        for node in division:
            states = _beam(self._successors(states, node, level))
            level -= 1
        return states

    def _inputs(self, first: LinearMap) -> Iterator[_State]:
        for candidate in input_candidates(first, self.slots):
            state = _State(
                candidate, candidate, candidate.layout, price=candidate.layout.ciphertexts * self.prices.upload
            )
            if self._allowed(state):
                yield state

    def _squared(self, state: _State, name: str, level: int) -> _State:
        spent = state.price + state.layout.ciphertexts * square_price(self.prices.operations, level)
        return replace(state, steps=(*state.steps, SquareStep(name)), price=spent)

    def _successors(self, states: _States, node: Node, level: int) -> _States:
        linear = map_of(node)
        posed: list[tuple[float, _State, Kernel]] = []
        refusals: list[str] = []
        for state in states:
            for candidate in output_candidates(linear, state.candidate, self.slots):
                kernel = self.kernels(linear, replace(state.candidate, layout=state.layout), candidate)
                try:
                    least = kernel.least(self.prices.operations, level, kernel.fewest_diagonals)
                except PlanError as error:
                    refusals.append(str(error))
                else:
                    posed.append((state.price + least, state, kernel))
        if states and not posed:
            why = refusals[0] if refusals else f"no layout of {linear.out_shape} fits {self.slots} slots"
            self.failure = self.failure or f"{node.name}: {why}; use a larger ring degree"
        found: _States = []
        solved: list[tuple[float, _State, Kernel]] = []
        for least, state, kernel in sorted(posed, key=lambda p: p[0])[:_POSED]:
            if least >= self._worst_kept(found):
                break
            ways = list(self._evaluations(state, kernel, kernel.sets, node.name, level, found))
            found += ways
            solved.append((min((way.price for way in ways), default=inf), state, kernel))
        for price, state, kernel in sorted(solved, key=lambda s: s[0])[:_REFINED]:
            if price < inf:
                found += self._evaluations(state, kernel, kernel.more_sets, node.name, level, found)
        if posed and not found:
            self.failure = self.failure or f"{node.name}: every plan leaves partial sums in the output's unused slots"
        return found

    def _evaluations(
        self, state: _State, kernel: Kernel, sets: list[DiagonalSet], name: str, level: int, found: _States
    ) -> Iterator[_State]:
        """The cheapest plan of every set of diagonals, as far as it may enter the beam."""
        last = level == 1  # the input starts at just the level that the network needs
        for diagonals in sets:
            least = kernel.least(self.prices.operations, level, len(diagonals.diagonals))
            if state.price + least >= self._worst_kept(found):
                continue
            plan = min(kernel.plans(diagonals, last=last), key=lambda p: self._price(p, state, level))
            successor = self._successor(state, plan, kernel, name, level)
            if (level > 1 or not successor.layout.has_free_slots) and self._allowed(successor):
                yield successor

    def _price(self, plan: LinearPlan, state: _State, level: int) -> float:
        return plan.price(self.prices.operations, level) + self.prices.key * len(plan.keys - state.keys)

    def _successor(self, state: _State, plan: LinearPlan, kernel: Kernel, name: str, level: int) -> _State:
        return _State(
            state.input,
            kernel.target,
            plan.target,
            (*state.steps, LinearStep(name, plan)),
            state.price + self._price(plan, state, level),
            state.keys | plan.keys,
            state.plaintext_bytes + plan.counts.hma * plaintext_bytes(self.ring, level),
        )

    def _worst_kept(self, found: _States) -> float:
        """Price from which on a further state is of no use."""
        kept = _beam(found)
        return min(self.to_beat, kept[-1].price if len(kept) == _BEAM else inf)

    def _allowed(self, state: _State) -> bool:
        keys = len(state.keys) + 1  # relinearization
        needs = Needs(
            key_bytes=keys * key_bytes(self.ring),
            upload_bytes=state.input.layout.ciphertexts * ciphertext_bytes(self.ring, self.levels),
            memory_bytes=keys * loaded_key_bytes(self.ring) + state.plaintext_bytes,
        )
        limit = needs.exceeded(self.limits)
        if limit:
            need = getattr(needs, limit)
            self.refused[limit] = min(need, self.refused.get(limit, need))
        return limit is None


def _beam(states: Iterable[_State]) -> _States:
    """Keep the cheapest states, one for each layout."""
    kept: dict[Layout, _State] = {}
    for state in sorted(states, key=lambda s: s.price):
        kept.setdefault(state.layout, state)
    return list(kept.values())[:_BEAM]

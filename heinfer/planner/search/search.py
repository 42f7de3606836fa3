"""Search over layouts: a beam over the layers of a folded network, cheapest first.

A plan is made for every number of levels in which the network can be evaluated (neighbouring linear maps merged or
kept: merging.py), in the smallest secure ring and, where tensors overflow its slots, the next.
State: the layouts of the live tensors, their levels and the keys in use. Each affine layer is tried from every
kept state to every candidate layout; lower bounds discard most pairs before any cover is solved, and a complete
plan discards every state that already costs more. Where branches meet, the tensors that a layer reads are planned as
one, in the ciphertexts of all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf, prod

from heinfer.ckks.parameters import Parameters
from heinfer.errors import PlanError
from heinfer.network.ir import INPUT, Network
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, Chebyshev
from heinfer.planner.plan import Plan, ProductStep, SeriesStep, SquareStep, pointwise_price
from heinfer.planner.requirements import (
    DEFAULT,
    Needs,
    Objective,
    Prices,
    Requirements,
    ciphertext_bytes,
    key_bytes,
    prices,
    table_for,
)
from heinfer.planner.search.candidates import (
    Candidate,
    input_candidates,
    split_input_candidates,
)
from heinfer.planner.search.extension import Extension, expected
from heinfer.planner.search.kernels import Kernels
from heinfer.planner.search.merging import Merging, Part, Partition, Stage
from heinfer.planner.search.outlook import Outlook
from heinfer.planner.search.rings import rings, too_deep
from heinfer.planner.search.states import State, beam

_Levels = tuple[tuple[int, int], ...]
"""The level of every tensor that is still read."""


def plan_network(network: Network, parameters: Parameters | None = None, requirements: Requirements = DEFAULT) -> Plan:
    """Choose layouts, kernels and what to merge for a folded network.

    Args:
        network: Affine and Square nodes only, as heinfer.network.folding.fold returns.
        parameters: by default a secure ring with a level for every layer of the plan.
        requirements: what the plan shall be good at.

    Raises:
        PlanError: when a layer has no plan; names the layer, or the limit and what it would take.
    """
    if not isinstance(network.nodes[0].operator, Affine):
        raise PlanError(f"{network.nodes[0].name}: fold the network first, it must start with an affine map")
    if requirements.objective is Objective.THROUGHPUT:
        return _best_batch(network, parameters, requirements)
    merging, kernels = Merging(network), Kernels()
    best: tuple[State, _Search] | None = None
    failures: list[_Search] = []
    for ring, levels in rings(merging, network, parameters, requirements):
        for inputs in _kinds_of_inputs(network, ring.slots // requirements.batch):
            to_beat = best[0].price if best else inf
            priced = prices(requirements, ring, levels)
            search = _Search(merging, kernels, ring, levels, requirements, priced, to_beat, inputs)
            found = search.run()
            if found:
                best = found, search
            elif not best:
                failures.append(search)
    if best is None:
        raise PlanError(_why(failures, network, parameters))
    state, search = best
    return Plan(search.ring, search.levels, state.input.layout, state.input.label, state.steps, requirements.batch)


def _best_batch(network: Network, parameters: Parameters | None, requirements: Requirements) -> Plan:
    """The plan of the least time an image among batches of 1, 4, 16, ... up to the required one."""
    plans: list[Plan] = []
    batch, refusal = requirements.batch, None
    while batch:
        try:
            plans.append(
                plan_network(network, parameters, replace(requirements, objective=Objective.TIME, batch=batch))
            )
        except PlanError as error:
            refusal = error
        batch //= 4
    if not plans:
        raise refusal or PlanError("no batch has a plan")
    return min(plans, key=lambda plan: plan.price(table_for(requirements, plan.parameters)) / plan.batch)


_Inputs = Callable[[LinearMap, int], Iterator[Candidate]]


def _kinds_of_inputs(network: Network, slots: int) -> tuple[_Inputs, ...]:
    """Kinds of input layouts, searched one after the other: what pays off late would lose beside the others."""
    overflows = max(prod(shape) for shape in network.shapes) > slots
    return (input_candidates, split_input_candidates) if overflows else (input_candidates,)


def _why(failures: list[_Search], network: Network, parameters: Parameters | None) -> str:
    if not failures and parameters:
        return too_deep(network, parameters)
    refused = [search.refused for search in failures if search.refused]
    if refused:
        limit = next(iter(refused[0]))
        least = min(need[limit] for need in refused if limit in need)
        return (
            f"no plan keeps to the limit {limit} = {getattr(failures[0].limits, limit):.0f}: the search found none "
            f"that takes less than {least}; raise the limit to that"
        )
    return next((search.failure for search in failures if search.failure), "the network has no plan")


class _Search:
    """The search for one ring and one number of levels."""

    def __init__(
        self,
        merging: Merging,
        kernels: Kernels,
        ring: Parameters,
        levels: int,
        requirements: Requirements,
        prices: Prices,
        to_beat: float,
        inputs: _Inputs,
    ) -> None:
        self.merging = merging
        self.kernels = kernels
        self.ring = ring
        self.levels = levels
        self.slots = ring.slots // requirements.batch
        self.limits = requirements.limits
        self.prices = prices
        self.to_beat = to_beat
        self.inputs = inputs
        self.refused: dict[str, int] = {}
        self.failure = ""

    def run(self) -> State | None:
        """The cheapest complete plan that beats what there is, None when there is none."""
        at: dict[_Levels, list[State]] = {((INPUT, self.levels),): []}
        for number, stage in enumerate(self.merging.stages):
            after: defaultdict[_Levels, list[State]] = defaultdict(list)
            done = [tensor for tensor in stage.reads if self.merging.last_stage[tensor] == number]
            for levels, states in at.items():
                for partition in stage.partitions:
                    if number == 0:
                        states = list(self._inputs(partition))  # noqa: PLW2901
                    for end in self._ends(stage, partition, dict(levels)):
                        left = {tensor: level for tensor, level in levels if tensor not in done}
                        key = tuple(sorted((left | {stage.makes: end}).items()))
                        after[key] += self._through(partition, states, dict(levels), end, done)
            at = {levels: beam(states, expected(self._outlook(dict(levels)))) for levels, states in after.items()}
        ends = at.get(((self.merging.stages[-1].makes, 0),), [])
        complete = (s for s in ends if s.price < self.to_beat and not s.layouts[0].has_free_slots)
        return min(complete, key=lambda s: s.price, default=None)

    def _ends(self, stage: Stage, partition: Partition, levels: dict[int, int]) -> Iterator[int]:
        """Levels at which a stage may end so that what follows can use up exactly those that are left."""
        left = self.merging.levels_from(stage.makes)
        top = min(levels[tensor] - partition.distance[tensor] for tensor in stage.reads)
        if stage.makes in self.merging.may_wait:
            yield from (end for end in left if end <= top)
        elif top in left:
            yield top

    def _through(
        self, partition: Partition, states: list[State], levels: dict[int, int], end: int, done: list[int]
    ) -> list[State]:
        """Take states through the parts of a partition, which ends at a level."""
        levels = dict(levels)
        for number, part in enumerate(partition.parts):
            level = end + partition.distance[part.makes] + part.depth
            later = {tensor for after in partition.parts[number + 1 :] for tensor in after.reads}
            read = [t for t in part.reads if t not in later and (t in done or t not in self.merging.last_stage)]
            levels = {t: at for t, at in levels.items() if t not in read} | {part.makes: level - part.depth}
            outlook = self._outlook(levels)
            if part.is_map:
                found = self._extended(states, part, level, outlook)
            elif len(part.reads) == 1:
                found = list(self._squared(states, part, level))
            else:
                found = self._multiplied(states, part, level)
            states = beam((state.without(read) for state in found), expected(outlook))
        return states

    def _outlook(self, levels: dict[int, int]) -> Outlook:
        return Outlook(self.merging.readers, self.prices.operations, levels)

    def _inputs(self, partition: Partition) -> Iterator[State]:
        """The inputs that the first map of a partition suggests."""
        first = next(linear for part in partition.parts for tensor, linear in part.terms if tensor == INPUT)
        for candidate in self.inputs(first, self.slots):
            state = State.sent(candidate, candidate.layout.ciphertexts * self.prices.upload)
            if self._allowed(state):
                yield state

    def _squared(self, states: list[State], part: Part, level: int) -> Iterator[State]:
        """States with a square or a series, in place."""
        operator = part.node.operator
        for state in states:
            [place] = state.places(part.reads)
            name, reads = part.node.name, state.steps_of(part.reads)
            series = SeriesStep(name, level, reads, operator, place.layout) if isinstance(operator, Chebyshev) else None
            step = series or SquareStep(name, level, reads)
            price = pointwise_price(self.prices.operations, step)
            yield state.followed_by(step, part.makes, place, place.layout.ciphertexts * price)

    def _multiplied(self, states: list[State], part: Part, level: int) -> list[State]:
        """States with a product, where its second factor can be rotated to where the first is."""
        found = []
        for state in states:
            first, second = state.places(part.reads)
            aligned = first.layout.aligned(second.layout)
            if aligned is None:
                continue
            shift, layout = aligned
            step = ProductStep(part.node.name, level, state.steps_of(part.reads), shift)
            keys = state.keys | ({shift} if shift else set())
            price = layout.ciphertexts * pointwise_price(self.prices.operations, step)
            price += self.prices.key * len(keys - state.keys)
            after = replace(state.followed_by(step, part.makes, replace(first, layout=layout), price), keys=keys)
            if self._allowed(after):
                found.append(after)
        if states and not found:
            self.failure = self.failure or f"{part.node.name}: no plan brings its two factors to one layout"
        return found

    def _extended(self, states: list[State], part: Part, level: int, outlook: Outlook) -> list[State]:
        extension = Extension(
            part,
            level,
            outlook,
            partners=self.merging.partners.get(part.makes, frozenset()),
            in_series=part.makes in self.merging.in_series,
            kernels=self.kernels,
            slots=self.slots,
            ring=self.ring,
            prices=self.prices,
            to_beat=self.to_beat,
            allowed=self._allowed,
        )
        found = extension.of(states)
        self.failure = self.failure or extension.failure
        return found

    def _allowed(self, state: State) -> bool:
        keys = len(state.keys) + 1  # relinearization
        needs = Needs(
            key_bytes=keys * key_bytes(self.ring),
            upload_bytes=state.input.layout.ciphertexts * ciphertext_bytes(self.ring, self.levels),
            memory_bytes=keys * self.ring.seal_key_bytes + state.plaintext_bytes,
        )
        limit = needs.exceeded(self.limits)
        if limit:
            need = getattr(needs, limit)
            self.refused[limit] = min(need, self.refused.get(limit, need))
        return limit is None

"""The ways on from plans of the first layers through one more map: which kernels are solved, and which kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import inf

from heinfer.ckks.parameters import Parameters
from heinfer.errors import PlanError
from heinfer.layout.layout import Layout
from heinfer.planner.kernel.diagonals import DiagonalSet
from heinfer.planner.kernel.linear import LinearPlan
from heinfer.planner.plan import LinearStep
from heinfer.planner.requirements import Prices, plaintext_bytes
from heinfer.planner.search.candidates import Candidate, alike_candidates, target_candidates, without_free_slots
from heinfer.planner.search.kernels import Kernel, Kernels
from heinfer.planner.search.merging import Part
from heinfer.planner.search.outlook import Outlook
from heinfer.planner.search.states import BEAM, State, beam

_SOLVED = 12
"""Kernels of one map that are solved, those of the lowest bounds."""
_REFINED = 4
"""Kernels for which sets of diagonals with more of a pattern are tried."""
_FEW_DIAGONALS = 24_000
"""Where the kernels of a map that are solved have more of them together, a fourth as many are, and one is refined."""


def expected(outlook: Outlook) -> Callable[[State], float]:
    """The price of a state and of what certainly follows."""
    return lambda state: state.price + outlook(state.layout_of)


@dataclass(order=True)
class _Posed:
    """A kernel that might be solved, with a bound on the price of what comes of it; ``is_close`` when that is found."""

    least: float
    number: int
    state: State = field(compare=False)
    kernel: Kernel = field(compare=False)
    follows: float = field(compare=False)
    is_close: bool = field(compare=False, default=False)


class Extension:
    """The ways on through one map at a level.

    Attributes:
        found: states that were found so far.
        failure: why there are none, where there are none.
    """

    def __init__(  # noqa: PLR0913 - of the search that it is a step of
        self,
        part: Part,
        level: int,
        outlook: Outlook,
        *,
        partners: frozenset[int],
        in_series: bool,
        kernels: Kernels,
        slots: int,
        ring: Parameters,
        prices: Prices,
        to_beat: float,
        allowed: Callable[[State], bool],
    ) -> None:
        """Prepare a step of a search.

        Args:
            level: of what the map reads; the input starts at just the level that the network needs, so 1 is the last.
            partners: tensors beside which the map's own must lie, to be multiplied with one of them.
            in_series: whether a series is made of its tensor slot by slot: unused slots must then hold zero.
            to_beat: expected price from which on a state is of no use.
            allowed: whether a state keeps to the limits.
        """
        self.part, self.level, self.outlook, self.kernels = part, level, outlook, kernels
        self.partners, self.in_series = partners, in_series
        self.slots, self.ring, self.prices, self.to_beat, self.allowed = slots, ring, prices, to_beat, allowed
        self.expected = expected(outlook)
        self.found: list[State] = []
        self.failure = ""

    def of(self, states: list[State]) -> list[State]:
        """States with one layer more, not only the best of them."""
        posed = list(self._posed(states))
        kernels = {one.kernel for one in posed}
        heapify(posed)
        solved: list[tuple[float, _Posed]] = []
        diagonals = 0
        while posed and len(solved) < (_SOLVED if diagonals <= _FEW_DIAGONALS else _SOLVED // 4):
            one = heappop(posed)
            if one.least >= self._worst_kept():
                break
            if not one.is_close:
                least = one.state.price + self._least(one.kernel, one.kernel.at_least) + one.follows
                heappush(posed, replace(one, least=least, is_close=True))
                continue
            ways = list(self._evaluations(one, one.kernel.sets))
            self.found += ways
            diagonals += len(one.kernel.sets[0])
            solved.append((min(map(self.expected, ways), default=inf), one))
        refined = _REFINED if diagonals <= _FEW_DIAGONALS else 1
        for price, one in sorted(solved, key=lambda s: s[0])[:refined]:
            if price < inf:
                self.found += self._evaluations(one, one.kernel.more_sets(self._ratio(one.kernel)))
        for kernel in kernels:
            kernel.problem.forget()
        if kernels and not self.found:
            self.failure = f"{self.part.node.name}: every plan leaves partial sums in the output's unused slots"
        return self.found

    def _posed(self, states: list[State]) -> Iterator[_Posed]:
        """Every kernel from the layouts of a state to a candidate."""
        part, number, refusals = self.part, 0, []
        for state in states:
            places = state.places(part.reads)
            source = Layout.side_by_side([place.layout for place in places])
            for candidate in self._candidates(state, places):
                kernel = self.kernels(part.map, source, candidate)
                try:
                    least = self._least(kernel, kernel.fewest_diagonals)
                except PlanError as error:
                    refusals.append(str(error))
                else:
                    follows = self.outlook({**state.layout_of, part.makes: candidate.layout})
                    yield _Posed(state.price + least + follows, number, state, kernel, follows)
                    number += 1
        if states and not number:
            why = refusals[0] if refusals else f"no layout of {part.map.out_shape} fits {self.slots} slots"
            self.failure = f"{part.node.name}: {why}; use a larger ring degree"

    def _candidates(self, state: State, places: list[Candidate]) -> Iterator[Candidate]:
        """What the layouts that are read suggest, or where a tensor is that this one will be multiplied with."""
        partner = self._partner(state)
        if partner is None:
            candidates = target_candidates(self.part.maps, places, self.slots, last=self.level == 1)
        else:
            candidates = alike_candidates(partner)
        return map(without_free_slots, candidates) if self.in_series else candidates

    def _partner(self, state: State) -> Candidate | None:
        """A tensor beside which the map's own must lie."""
        return next((held.place for tensor, held in state.tensors.items() if tensor in self.partners), None)

    def _evaluations(self, one: _Posed, sets: list[DiagonalSet]) -> Iterator[State]:
        """The cheapest plan of every set of diagonals, as far as it may enter the beam."""
        state, kernel = one.state, one.kernel
        last, hoists, ratio = self.level == 1, self.prices.operations.hoists, self._ratio(kernel)
        for diagonals in sets:
            if state.price + self._least(kernel, len(diagonals)) + one.follows >= self._worst_kept():
                continue
            plans = kernel.plans(diagonals, last=last, hoists=hoists, ratio=ratio)
            plan = min(plans, key=lambda plan: self._price(plan, state) + self._to_align(plan, state))
            successor = self._successor(state, plan, kernel)
            if not ((last or self.in_series) and plan.target.has_free_slots) and self.allowed(successor):
                yield successor

    def _least(self, kernel: Kernel, diagonals: int) -> float:
        return kernel.least(self.prices.operations, self.level, diagonals)

    def _ratio(self, kernel: Kernel) -> float:
        return kernel.ratio(self.prices.operations, self.level)

    def _price(self, plan: LinearPlan, state: State) -> float:
        return plan.price(self.prices.operations, self.level) + self.prices.key * len(plan.keys - state.keys)

    def _to_align(self, plan: LinearPlan, state: State) -> float:
        """What it takes to rotate the result to where it is multiplied, if a plan moves it."""
        if not plan.cover.offset or self._partner(state) is None:
            return 0.0
        return plan.chosen.problem.target.ciphertexts * self.prices.operations("rotation", max(1, self.level - 1))

    def _successor(self, state: State, plan: LinearPlan, kernel: Kernel) -> State:
        step = LinearStep(self.part.node.name, plan, self.level, state.steps_of(self.part.reads))
        place = replace(kernel.target, layout=plan.target)
        successor = state.followed_by(step, self.part.makes, place, self._price(plan, state))
        constants = plan.counts.hma * plaintext_bytes(self.ring, self.level)
        return replace(successor, keys=state.keys | plan.keys, plaintext_bytes=state.plaintext_bytes + constants)

    def _worst_kept(self) -> float:
        """Expected price from which on a further state is of no use."""
        kept = beam(self.found, self.expected)
        return min(self.to_beat, self.expected(kept[-1]) if len(kept) == BEAM else inf)

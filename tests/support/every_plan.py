"""The cheapest plan of a small chain of layers, by trying them all: every partition, layout, set of diagonals, cover.

What may be chosen from is what the search chooses from. Nothing is left out but what cannot become the cheapest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, prod

from heinfer.ckks.parameters import Parameters
from heinfer.network.ir import Network
from heinfer.planner.plan import LinearStep, Plan, square_price
from heinfer.planner.requirements import Prices, Requirements, prices
from heinfer.planner.search.candidates import (
    Candidate,
    input_candidates,
    split_input_candidates,
    target_candidates,
)
from heinfer.planner.search.kernels import Kernels
from heinfer.planner.search.merging import Merging, Part, Partition


@dataclass(frozen=True, eq=False)
class _Way:
    """Some plan of the first layers: where their result is, what it took, and the keys in use."""

    place: Candidate
    price: float
    keys: frozenset[int] = frozenset()


def price_of(plan: Plan, requirements: Requirements) -> float:
    """What the search minimises, of a finished plan of a chain that is sent in a ring's own slots."""
    priced, keys = prices(requirements, plan.parameters, plan.input_level), frozenset[int]()
    total = plan.single_input.ciphertexts * priced.upload
    held = plan.single_input.ciphertexts
    for step in plan.steps:
        if isinstance(step, LinearStep):
            total += step.plan.price(priced.operations, step.level)
            keys |= step.plan.keys
            held = step.plan.target.ciphertexts
        else:
            total += held * square_price(priced.operations, step.level)
    return total + len(keys) * priced.key


def least_price(network: Network, parameters: Parameters, requirements: Requirements, most: float = inf) -> float:
    """The price of the cheapest plan of a folded chain in a ring; infinite when all take more than ``most``."""
    merging, kernels = Merging(network), Kernels()
    found = (
        _Everything(merging, kernels, parameters, levels, requirements, most).least(network)
        for levels in merging.levels
        if levels <= parameters.top_level
    )
    return min(found, default=inf)


class _Everything:
    """All plans for one number of levels."""

    def __init__(
        self,
        merging: Merging,
        kernels: Kernels,
        parameters: Parameters,
        levels: int,
        requirements: Requirements,
        most: float,
    ) -> None:
        self.merging, self.kernels, self.slots = merging, kernels, parameters.slots
        self.levels, self.most = levels, most
        self.prices: Prices = prices(requirements, parameters, levels)

    def least(self, network: Network) -> float:
        overflows = max(prod(shape) for shape in network.shapes) > self.slots
        at: dict[int, list[_Way]] = {self.levels: []}
        for number, stage in enumerate(self.merging.stages):
            after: defaultdict[int, list[_Way]] = defaultdict(list)
            for level, ways in at.items():
                for partition in stage.partitions:
                    end = level - len(partition.parts)
                    if end in self.merging.levels_from(stage.makes):
                        begun = ways if number else list(self._sent(partition, split=overflows))
                        after[end] += self._through(partition, begun, level)
            at = {level: self._not_beaten(ways) for level, ways in after.items()}
        return min((way.price for way in at.get(0, []) if not way.place.layout.has_free_slots), default=inf)

    def _sent(self, partition: Partition, *, split: bool) -> Iterator[_Way]:
        first = partition.parts[0].map
        for kind in (input_candidates, split_input_candidates)[: 1 + split]:
            for place in kind(first, self.slots):
                yield _Way(place, place.layout.ciphertexts * self.prices.upload)

    def _through(self, partition: Partition, ways: list[_Way], level: int) -> list[_Way]:
        for part in partition.parts:
            ways = self._not_beaten([after for way in ways for after in self._after(way, part, level)])
            level -= 1
        return ways

    def _after(self, way: _Way, part: Part, level: int) -> Iterator[_Way]:
        operations, source = self.prices.operations, way.place.layout
        if not part.is_map:
            price = source.ciphertexts * square_price(operations, level)
            yield _Way(way.place, way.price + price, way.keys)
            return
        last = level == 1
        for target in target_candidates(part.maps, [way.place], self.slots, last):
            kernel = self.kernels(part.map, source, target)
            ratio = kernel.ratio(operations, level)
            for diagonals in (*kernel.sets, *kernel.more_sets(ratio)):
                for plan in kernel.plans(diagonals, last=last, hoists=operations.hoists, ratio=ratio):
                    price = plan.price(operations, level) + self.prices.key * len(plan.keys - way.keys)
                    if way.price + price <= self.most:
                        place = Candidate(plan.target, (), target.grid, "", target.phases)
                        yield _Way(place, way.price + price, way.keys | plan.keys)

    def _not_beaten(self, ways: list[_Way]) -> list[_Way]:
        """Those that may become the cheapest: no other with the same layout is cheaper with all keys of theirs."""
        kept: dict[object, list[_Way]] = {}
        for way in sorted(ways, key=lambda way: way.price):
            place = way.place
            others = kept.setdefault((place.layout, place.grid, place.phases), [])
            if all(one.price + self.prices.key * len(way.keys - one.keys) > way.price for one in others):
                others.append(way)
        return [way for others in kept.values() for way in others]

"""Which adjacent linear maps of a network become one: fewer levels against fewer operations.

Between two activations a network has a run of linear maps (a pool, the two halves of an FFConv). Any neighbours in it
may be multiplied out: that saves a level, and usually costs diagonals. The search tries the partitions of each run.
Where branches meet, a run is a tree: several maps may end in a sum or concatenation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

from heinfer.errors import PlanError
from heinfer.network.ir import INPUT, Network, Node
from heinfer.network.joints import AffineSum, Product
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, Chebyshev, Square
from heinfer.network.terms import Terms, operator_of, substituted
from heinfer.planner.series import depth_of

_MOST_ENTRIES = 3_000_000
"""Of a product that the search tries on its own account."""
_MOST_GROWTH = 16
"""How many times the entries of its factors a product may have."""
_MOST_DIVIDED = 5
"""Of a run of more maps, the first are multiplied out."""


@dataclass(frozen=True, eq=False)
class Part:
    """A node of a folded network, or several multiplied out. Tensors go by the position of the node that makes them.

    Attributes:
        node: a map, a square, a product or a series; named after all that went into it.
        reads: the tensors it reads.
        makes: the tensor it makes.
    """

    node: Node
    reads: tuple[int, ...]
    makes: int

    @property
    def is_map(self) -> bool:
        return not isinstance(self.node.operator, Square | Product | Chebyshev)

    @property
    def depth(self) -> int:
        """Levels that it takes."""
        operator = self.node.operator
        return depth_of(operator.degree) if isinstance(operator, Chebyshev) else 1

    @property
    def maps(self) -> tuple[LinearMap, ...]:
        """One for each tensor that it reads."""
        operator = self.node.operator
        return operator.maps if isinstance(operator, AffineSum) else (map_of(self.node),)

    @property
    def map(self) -> LinearMap:
        """The one map of all elements that it reads."""
        operator = self.node.operator
        return operator.map if isinstance(operator, AffineSum) else map_of(self.node)

    @cached_property
    def terms(self) -> Terms:
        return tuple(zip(self.reads, self.maps, strict=True))


@dataclass(frozen=True, eq=False)
class Partition:
    """One way to evaluate a run: its parts, each after those that it reads."""

    parts: tuple[Part, ...]

    @cached_property
    def distance(self) -> dict[int, int]:
        """Levels from each tensor that is read or made to the result of the last part."""
        found = {self.parts[-1].makes: 0}
        for part in reversed(self.parts):
            for tensor in part.reads:
                found[tensor] = max(found.get(tensor, 0), found[part.makes] + part.depth)
        return found


@dataclass(frozen=True, eq=False)
class Stage:
    """A run of maps with all its partitions, or a square or product with one."""

    partitions: tuple[Partition, ...]
    reads: tuple[int, ...]
    makes: int

    @classmethod
    def of(cls, parts: list[Part]) -> Stage:
        made = {part.makes for part in parts}
        reads = dict.fromkeys(tensor for part in parts for tensor in part.reads if tensor not in made)
        return cls(partitions(parts), tuple(reads), parts[-1].makes)


class Merging:
    """A folded network as stages, and how many levels each tensor may be from the output."""

    def __init__(self, network: Network) -> None:
        parts = [Part(*node) for node in zip(network.nodes, network.reads, range(len(network.nodes)), strict=True)]
        self.stages = [Stage.of(run) for run in _runs(parts)]
        self.last_stage = {tensor: number for number, stage in enumerate(self.stages) for tensor in stage.reads}
        self._fewest, self._most = self._levels_left(min), self._levels_left(max)

    @cached_property
    def readers(self) -> dict[int, tuple[LinearMap, ...]]:
        """The maps that read every tensor, its square, or the product that it is the first factor of, unmerged."""
        found: dict[int, tuple[LinearMap, ...]] = {}
        for part in reversed([part for stage in self.stages for part in stage.partitions[0].parts]):
            for tensor in part.reads if part.is_map else part.reads[:1]:
                maps = (dict(part.terms)[tensor],) if part.is_map else found.get(part.makes, ())
                found[tensor] = found.get(tensor, ()) + maps
        return found

    @cached_property
    def _alike(self) -> dict[int, frozenset[int]]:
        """Tensors that lie alike with each other, whatever the search does: what is made slot by slot of them, too."""
        found: dict[int, frozenset[int]] = {}
        for part in self._pointwise:
            together = {part.makes, *part.reads}.union(*(found.get(tensor, ()) for tensor in part.reads))
            found |= dict.fromkeys(together, frozenset(together))
        return found

    @property
    def _pointwise(self) -> list[Part]:
        return [part for stage in self.stages for part in stage.partitions[0].parts if not part.is_map]

    @cached_property
    def partners(self) -> dict[int, frozenset[int]]:
        """Tensors that must lie alike: factors, what they are factors of, and what lies as these do."""
        multiplied = {tensor for part in self._pointwise if len(part.reads) > 1 for tensor in part.reads}
        return {tensor: group for tensor, group in self._alike.items() if group & multiplied}

    @cached_property
    def in_series(self) -> frozenset[int]:
        """Tensors that lie as one does of which a series is made: what unused slots hold would grow beyond bounds."""
        series = (part.makes for part in self._pointwise if isinstance(part.node.operator, Chebyshev))
        return frozenset(tensor for made in series for tensor in self._alike[made])

    def _levels_left(self, choose: Callable[[Iterable[int]], int]) -> dict[int, int]:
        """Levels from every tensor to the output along its longest way, every run at its fewest or most."""
        left = {self.stages[-1].makes: 0}
        for stage in reversed(self.stages):
            for tensor in stage.reads:
                way = left[stage.makes] + choose(partition.distance[tensor] for partition in stage.partitions)
                left[tensor] = max(left.get(tensor, 0), way)
        return left

    def _levels_used(self, choose: Callable[[Iterable[int]], int]) -> dict[int, int]:
        used = {INPUT: 0}
        for stage in self.stages:
            ways = (used[t] + choose(partition.distance[t] for partition in stage.partitions) for t in stage.reads)
            used[stage.makes] = max(ways)
        return used

    @property
    def levels(self) -> range:
        """How many levels the network can be evaluated in."""
        return self.levels_from(INPUT)

    def levels_from(self, tensor: int) -> range:
        """In how many levels the output can be made of a tensor."""
        return range(self._fewest[tensor], self._most[tensor] + 1)

    @cached_property
    def may_wait(self) -> frozenset[int]:
        """Tensors beside a longer way: they may be made at a lower, cheaper level than they could."""
        ways = ((self._fewest, self._levels_used(min)), (self._most, self._levels_used(max)))
        return frozenset(
            stage.makes
            for stage in self.stages
            if any(used[stage.makes] + left[stage.makes] < left[INPUT] for left, used in ways)
        )


def _runs(parts: list[Part]) -> Iterator[list[Part]]:
    """Maps with those that only they read, and squares and products, each after what it reads."""
    reader = {tensor: part for part in parts for tensor in part.reads}
    readers = Counter(tensor for part in parts for tensor in part.reads)
    end: dict[int, int] = {}
    for part in reversed(parts):
        after = reader.get(part.makes)
        goes_on = after and readers[part.makes] == 1 and part.is_map and after.is_map
        end[part.makes] = end[after.makes] if after and goes_on else part.makes
    for last in sorted(set(end.values())):
        yield [part for part in parts if end[part.makes] == last]


def partitions(parts: list[Part]) -> tuple[Partition, ...]:
    """All ways to merge the neighbours of a run, most parts first."""
    while len(parts) > _MOST_DIVIDED:
        first = parts[0]
        parts = [multiplied(first, part) if first.makes in part.reads else part for part in parts[1:]]
    found: list[Partition] = []
    for joints in product([False, True], repeat=len(parts) - 1):
        partition = _parted(parts, joints)
        if partition:
            found.append(partition)
    return tuple(sorted(found, key=lambda partition: len(partition.parts), reverse=True))


def _parted(parts: list[Part], joints: tuple[bool, ...]) -> Partition | None:
    """Merge each part but the last into its reader where its joint says so; None when a product would be too large."""
    goes_on = dict(zip((part.makes for part in parts[:-1]), joints, strict=True))
    kept: dict[int, Part] = {}
    for part in parts:
        whole = part
        for tensor in part.reads:
            if goes_on.get(tensor):
                first, after = kept.pop(tensor), dict(whole.terms)[tensor]
                if not _is_worth_trying(first.map, after):
                    return None
                whole = multiplied(first, whole)
        kept[part.makes] = whole
    return Partition(tuple(kept.values()))


def _is_worth_trying(first: LinearMap, second: LinearMap) -> bool:
    """Whether the product of two maps has few entries; ways to them, which are no fewer, are counted faster."""
    most = min(_MOST_ENTRIES, _MOST_GROWTH * (first.size + second.size))
    ways = int((first.reads * second.readers).sum())
    return ways <= most or first.size_then(second) <= most


@lru_cache(maxsize=64)
def multiplied(first: Part, second: Part) -> Part:
    """Two parts as one, the first of which makes a tensor that the second reads."""
    if len(first.reads) == len(second.reads) == 1:
        return Part(merged(first.node, second.node), first.reads, second.makes)
    terms = substituted(second.terms, first.makes, first.terms)
    node = Node(f"{first.node.name}+{second.node.name}", operator_of(terms))
    return Part(node, tuple(tensor for tensor, _ in terms), second.makes)


@lru_cache(maxsize=64)
def merged(first: Node, second: Node) -> Node:
    """Two affine nodes of a chain as one, named after both."""
    return Node(f"{first.name}+{second.name}", Affine(map_of(first).then(map_of(second))))


def map_of(node: Node) -> LinearMap:
    """The matrix of an affine node that reads one tensor; PlanError for any other."""
    if isinstance(node.operator, AffineSum):
        raise PlanError(f"{node.name}: branches meet here, and this takes a chain of layers only")
    if not isinstance(node.operator, Affine):
        raise PlanError(f"{node.name}: fold the network first; {type(node.operator).__name__} has no kernel")
    return node.operator.map

"""Which adjacent linear maps of a network become one: fewer levels against fewer operations.

Between two activations a network has a run of linear maps (a pool, the two halves of an FFConv). Any neighbours in it
may be multiplied out: that saves a level, and usually costs diagonals. The search tries the divisions of each run.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby, product

import numpy as np

from heinfer.errors import PlanError
from heinfer.network.ir import Network, Node
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, Square

_MOST_ENTRIES = 3_000_000
"""Of a product that the search tries on its own account."""
_MOST_GROWTH = 16
"""How many times the entries of its factors a product may have."""
_MOST_DIVIDED = 5
"""A longer run of maps is multiplied out in its first part."""


class Merging:
    """The divisions of every run of linear maps of a folded network."""

    def __init__(self, network: Network) -> None:
        self.runs: list[Node | list[tuple[Node, ...]]] = []
        for squares, group in groupby(network.nodes, key=lambda node: isinstance(node.operator, Square)):
            nodes = list(group)
            self.runs += nodes if squares else [divisions(nodes)]

    @property
    def levels(self) -> range:
        """How many levels the network can be evaluated in."""
        return self.levels_from(0)

    def levels_from(self, number: int) -> range:
        """How many levels the runs from that number on can be evaluated in."""
        fewest = most = 0
        for run in self.runs[number:]:
            lengths = [1] if isinstance(run, Node) else [len(division) for division in run]
            fewest += min(lengths)
            most += max(lengths)
        return range(fewest, most + 1)


def divisions(nodes: list[Node]) -> list[tuple[Node, ...]]:
    """All ways to merge neighbours, most nodes first."""
    while len(nodes) > _MOST_DIVIDED:
        nodes = [merged(nodes[0], nodes[1]), *nodes[2:]]
    found: list[tuple[Node, ...]] = []
    for joints in product([False, True], repeat=len(nodes) - 1):
        division = _divided(nodes, joints)
        if division:
            found.append(division)
    return sorted(found, key=len, reverse=True)


def _divided(nodes: list[Node], joints: tuple[bool, ...]) -> tuple[Node, ...] | None:
    """Merge at the joints; None when a product would be too large."""
    parts = [nodes[0]]
    for joint, node in zip(joints, nodes[1:], strict=True):
        if not joint:
            parts.append(node)
        elif product_entries(map_of(parts[-1]), map_of(node)) > _worth(map_of(parts[-1]), map_of(node)):
            return None
        else:
            parts[-1] = merged(parts[-1], node)
    return tuple(parts)


def _worth(first: LinearMap, second: LinearMap) -> int:
    return min(_MOST_ENTRIES, _MOST_GROWTH * (first.values.size + second.values.size))


def product_entries(first: LinearMap, second: LinearMap) -> int:
    """An upper bound on the entries of the product of two maps."""
    reads = np.bincount(first.rows, minlength=first.bias.size)
    readers = np.bincount(second.cols, minlength=first.bias.size)
    return int((reads * readers).sum())


@lru_cache(maxsize=64)
def merged(first: Node, second: Node) -> Node:
    """Two adjacent affine nodes as one, named after both."""
    return Node(f"{first.name}+{second.name}", Affine(map_of(first).then(map_of(second))))


def map_of(node: Node) -> LinearMap:
    """The matrix of an affine node; PlanError for any other."""
    if not isinstance(node.operator, Affine):
        raise PlanError(f"{node.name}: fold the network first; {type(node.operator).__name__} has no kernel")
    return node.operator.map

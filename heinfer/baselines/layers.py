"""What the layers of a network are to a published method: which neighbours it multiplies out, and what each becomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from math import prod

from heinfer.baselines.names import Policy
from heinfer.baselines.spectra import triple
from heinfer.errors import PlanError
from heinfer.network.ir import Network, Node
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Square
from heinfer.planner.search.merging import map_of, merged


class Evaluation(StrEnum):
    """How a linear layer is evaluated."""

    WINDOWS = "scalar products of windows that the client sends"
    POINTWISE = "scalar products of channels"
    CONVOLUTION = "a dot product over the window of every output"
    DENSE = "a dot product over the whole tensor for every output"
    TO_SPECTRUM = "a DFT of every block of channels"
    SPECTRAL = "a dot product over the window of every output, all frequencies of a block at once"
    FROM_SPECTRUM = "an inverse DFT of every block of channels"


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A linear layer of a network, and how it is evaluated.

    Attributes:
        block: of a block-circulant layer; 0 for any other.
    """

    name: str
    map: LinearMap
    evaluation: Evaluation
    block: int = 0

    @property
    def is_rows(self) -> bool:
        """Whether every output gets a row of its own, whose sum ends in one slot of many."""
        return self.evaluation in (Evaluation.CONVOLUTION, Evaluation.DENSE, Evaluation.SPECTRAL)


@dataclass(frozen=True)
class SquareLayer:
    """Squares every slot of a tensor."""

    name: str


Layer = LinearLayer | SquareLayer


def layers_of(network: Network, policy: Policy) -> list[Layer]:
    """The layers of a folded network under a method as published; PlanError for a network with branches."""
    _require_chain(network)
    layers: list[Layer] = []
    for squares, run in groupby(network.nodes, key=lambda node: isinstance(node.operator, Square)):
        if squares:
            layers += [SquareLayer(node.name) for node in run]
            continue
        nodes = list(run)
        if policy is Policy.FALCON:
            layers += _with_spectra(nodes, first=not layers)
        else:
            layers += _plain(_divided(nodes, keep_pointwise=policy is Policy.FFCONV), policy, first=not layers)
    return layers


def _plain(nodes: list[Node], policy: Policy, *, first: bool) -> Iterator[LinearLayer]:
    for number, node in enumerate(nodes):
        linear = map_of(node)
        yield LinearLayer(node.name, linear, _evaluation(linear, policy, first=first and not number))


def _with_spectra(run: list[Node], *, first: bool) -> list[LinearLayer]:
    """Block-circulant layers in three parts, the first of which takes in what comes before; others multiplied out."""
    layers: list[LinearLayer] = []
    before: list[Node] = []
    while run:
        block = triple(run)
        if not block:
            before.append(run.pop(0))
            continue
        parts = [_divided([*before, run[0]], keep_pointwise=False)[0], *run[1:3]]
        if first and not layers and before:  # windows that the client sends
            layers += _plain(_divided(before, keep_pointwise=False), Policy.FALCON, first=True)
            parts[0] = run[0]
        kinds = Evaluation.TO_SPECTRUM, Evaluation.SPECTRAL, Evaluation.FROM_SPECTRUM
        layers += [LinearLayer(n.name, map_of(n), kind, block) for n, kind in zip(parts, kinds, strict=True)]
        before, run = [], run[3:]
    if before:
        merged_rest = _divided(before, keep_pointwise=False)
        layers += _plain(merged_rest, Policy.FALCON, first=first and not layers)
    return layers


def levels_of(layers: list[Layer]) -> int:
    """One for each layer, and one for the mask after rows that are not the scores."""
    return len(layers) + sum(isinstance(layer, LinearLayer) and layer.is_rows for layer in layers[:-1])


def unfactorized(network: Network) -> Network:
    """The network with every FFConv (a convolution, then one of 1 x 1) and block-circulant layer multiplied out.

    Raises:
        PlanError: for a network with branches.
    """
    _require_chain(network)
    nodes: list[Node] = []
    rest = list(network.nodes)
    while rest:
        parts = 3 if triple(rest) else 1
        made = rest[0]
        for node in rest[1:parts]:
            made = merged(made, node)
        if parts == 1 and nodes and _is_pair(nodes[-1], made):
            nodes[-1] = merged(nodes[-1], made)
        else:
            nodes.append(made)
        rest = rest[parts:]
    return Network(network.input_shape, tuple(nodes))


def _require_chain(network: Network) -> None:
    if not network.is_chain:
        name = next(node.name for node, reads in zip(network.nodes, network.reads, strict=True) if len(reads) > 1)
        raise PlanError(f"{name}: branches meet here, and this policy plans chains of layers only")


def _is_pair(first: Node, second: Node) -> bool:
    if isinstance(first.operator, Square) or isinstance(second.operator, Square):
        return False
    return is_pointwise(map_of(second)) and not is_pointwise(map_of(first))


def _divided(run: list[Node], *, keep_pointwise: bool) -> list[Node]:
    """Neighbouring linear layers as one, but for 1 x 1 convolutions where these are to stay."""
    parts = [run[0]]
    for node in run[1:]:
        if keep_pointwise and (is_pointwise(map_of(parts[-1])) or is_pointwise(map_of(node))):
            parts.append(node)
        else:
            parts[-1] = merged(parts[-1], node)
    return parts


def is_pointwise(linear: LinearMap) -> bool:
    """Whether every output of a map between planes reads at its own position only."""
    if len(linear.in_shape) != 3 or linear.in_shape[1:] != linear.out_shape[1:]:
        return False
    plane = prod(linear.in_shape[1:])
    return bool((linear.entries.rows % plane == linear.entries.cols % plane).all())


def _evaluation(linear: LinearMap, policy: Policy, *, first: bool) -> Evaluation:
    if len(linear.in_shape) != 3 or len(linear.out_shape) != 3:
        return Evaluation.DENSE
    if first:
        return Evaluation.WINDOWS
    if policy is Policy.LOLA:
        return Evaluation.DENSE
    pointwise = policy is Policy.FFCONV and is_pointwise(linear)
    return Evaluation.POINTWISE if pointwise else Evaluation.CONVOLUTION

"""The predicted time of a network, layer by layer, and of what it would take at other levels or in another ring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from heinfer.circuit.counts import Counts, count
from heinfer.circuit.ir import Kind, Op
from heinfer.circuit.levels import levels
from heinfer.costs.prediction import price, sharing_digits
from heinfer.costs.tables import CostTable
from heinfer.frontend import trace
from heinfer.lowering.circuits import plan_circuit
from heinfer.network.folding import fold
from heinfer.planner.requirements import Requirements


@dataclass(frozen=True, eq=False)
class LayerOperations:
    """What runs for one layer of a plan.

    Attributes:
        name: of the layer; of merged ones, joined by "+".
        counts: of its operations.
        at: how many operations of each kind, whether they share digits, and with an argument at which level.
    """

    name: str
    counts: Counts
    at: Counter[tuple[Kind, bool, int]]

    def belongs_to(self, path: str) -> bool:
        """Whether it is, or holds, the module at a path or a part of it."""
        return not path or any(part == path or part.startswith(f"{path}.") for part in self.name.split("+"))

    def milliseconds(self, cost: CostTable, added: int = 0) -> float:
        """Predicted time when everything happens so many levels higher."""
        return sum(
            number * price(kind, max(0, level + added), cost, hoisted=hoisted)
            for (kind, hoisted, level), number in self.at.items()
        )


@dataclass(frozen=True, eq=False)
class Timing:
    """The operations of one plan, as its circuit has them."""

    ring_degree: int
    levels: int
    layers: tuple[LayerOperations, ...]

    def milliseconds(self, cost: CostTable, added: Sequence[int] | None = None) -> float:
        """Predicted time of a run, one thread; ``added`` says by how many levels each layer is higher than planned."""
        return sum(
            layer.milliseconds(cost, more)
            for layer, more in zip(self.layers, added or [0] * len(self.layers), strict=True)
        )

    def position(self, path: str) -> int:
        """Number of the first layer that belongs to a path; 0 when none does."""
        return next((number for number, layer in enumerate(self.layers) if layer.belongs_to(path)), 0)

    def counts(self, path: str) -> Counts:
        """Operations of the layers that belong to a path."""
        return sum((layer.counts for layer in self.layers if layer.belongs_to(path)), Counts())


def planned(module: nn.Module, input_shape: tuple[int, ...], requirements: Requirements) -> Timing:
    """Plan a whole network and read off the operations of the circuit that would run; CompileError as planning has."""
    plan, circuit = plan_circuit(fold(trace(module, input_shape)), requirements)
    operations: list[list[Op]] = [[] for _ in circuit.layers]
    at: list[Counter[tuple[Kind, bool, int]]] = [Counter() for _ in circuit.layers]
    level = levels(circuit, plan.input_level)
    for op, shares in zip(circuit.ops, sharing_digits(circuit), strict=True):
        if op.args:
            operations[op.layer].append(op)
            at[op.layer][op.kind, shares, level[op.args[0]]] += 1
    layers = (
        LayerOperations(layer.name, count(ops), kinds)
        for layer, ops, kinds in zip(circuit.layers, operations, at, strict=True)
    )
    return Timing(plan.parameters.ring_degree, plan.input_level, tuple(layers))

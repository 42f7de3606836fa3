"""check(): what compiling a model would come to, before any training and without its data."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import TYPE_CHECKING

from heinfer.brief import brief_repr
from heinfer.costs.cost import Cost
from heinfer.errors import CompileError
from heinfer.extras import needs
from heinfer.lowering.circuits import cost_of
from heinfer.network.folding import fold
from heinfer.network.ir import Node
from heinfer.network.joints import Product
from heinfer.network.operators import Chebyshev, Square
from heinfer.planner.requirements import DEFAULT, Requirements

if TYPE_CHECKING:
    from heinfer.frontend import Assumed, Model


@dataclass(frozen=True, eq=False)
class Check:
    """What a model would take.

    Attributes:
        assumed: what becomes of each call, and the verdict.
        products: most products of ciphertexts one after the other: squares and others.
        cost: of a plan; None where there is none.
        refusal: why there is no plan, though every call has its form.
    """

    assumed: Assumed
    products: int
    cost: Cost | None
    refusal: str

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{self.assumed.verdict}: {len(self.assumed.calls)} calls, {self.products} products deep"


def check(model: Model, input_shape: tuple[int, ...], requirements: Requirements = DEFAULT) -> Check:
    """Look at a model layer by layer, and plan what it would be: activations as polynomials of degree 2.

    Counts depend on no weights, so this is what the compiled model takes, if its polynomials are of that degree.

    Args:
        input_shape: of one input, without the batch axis.

    Raises:
        CompileError: when it is no model, or its forward cannot be followed.
    """
    with needs("train"):
        from heinfer.frontend import assume

    assumed = assume(model, input_shape)
    if assumed.network is None:
        return Check(assumed, 0, None, "")
    folded = fold(assumed.network)
    depth: dict[int, int] = {-1: 0}
    for position, (node, reads) in enumerate(zip(folded.nodes, folded.reads, strict=True)):
        depth[position] = max(depth[i] for i in reads) + _products(node)
    try:
        return Check(assumed, max(depth.values()), cost_of(folded, requirements), "")
    except CompileError as error:
        return Check(assumed, max(depth.values()), None, str(error))


def _products(node: Node) -> int:
    """Of ciphertexts, one after the other, in a node."""
    if isinstance(node.operator, Chebyshev):
        return ceil(log2(node.operator.degree + 1))
    return int(isinstance(node.operator, Square | Product))

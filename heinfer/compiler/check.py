"""check(): what compiling a model would come to, before any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from heinfer.brief import brief_repr
from heinfer.compiler.calibration import Array, Given, Inputs, as_inputs, require_finite
from heinfer.compiler.compile import compile as compiled
from heinfer.compiler.model import CompiledModel
from heinfer.costs.cost import Cost
from heinfer.errors import CompileError
from heinfer.extras import needs
from heinfer.formats.preprocessing import Preprocessing
from heinfer.lowering.circuits import cost_of
from heinfer.network.folding import fold
from heinfer.network.ir import Network, Node
from heinfer.network.joints import Product
from heinfer.network.operators import Chebyshev, Square
from heinfer.planner.requirements import DEFAULT, Requirements
from heinfer.planner.series import depth_of

if TYPE_CHECKING:
    from torch import nn

    from heinfer.convert import PolynomialReport
    from heinfer.frontend import Assumed, Model

Shapes = tuple[int, ...] | Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Check:
    """What a model would take.

    Attributes:
        assumed: what becomes of each call, and the verdict.
        products: most products of ciphertexts one after the other: squares and others.
        cost: of a plan; None where there is none.
        model: compiled with calibration, whose report says its precision; None without, or where that failed.
        polynomials: what polynomials that are fitted to calibration alone make of it; None where it has none to fit,
            or there was none.
        refusal: why it does not compile, though every call has its form.
    """

    assumed: Assumed
    products: int
    cost: Cost | None
    model: CompiledModel | None
    polynomials: PolynomialReport | None
    refusal: str

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{self.assumed.verdict}: {len(self.assumed.calls)} calls, {self.products} products deep"


def check(
    model: Model,
    input_shape: Shapes | None = None,
    requirements: Requirements = DEFAULT,
    *,
    calibration: Given | None = None,
) -> Check:
    """Look at a model layer by layer, and plan what it would be: activations as polynomials of degree 2.

    Counts depend on no weights, so this is what the compiled model takes, if its polynomials are of that degree.

    Args:
        input_shape: of one input, without the batch axis; of several inputs a mapping of their names.
        calibration: inputs as compile() takes them, (batch, *input_shape) or a mapping of names to such. With them the
            polynomials are fitted and the whole is compiled, within the range that they have: precision is then known.

    Raises:
        CompileError: when it is no model, or its forward cannot be followed.
    """
    with needs("train"):
        from heinfer.compiler.joined_module import as_one
        from heinfer.frontend import assume, module_of

    inputs = _inputs(input_shape, calibration)
    module, _ = as_one(module_of(model), inputs.parts, inputs.values, None, may_be_unnamed=True)
    assumed = assume(module, inputs.values.shape[1:])
    if assumed.network is None:
        return Check(assumed, 0, None, None, None, "")
    folded = fold(assumed.network)
    products, polynomials = _products(folded), None
    try:
        if calibration is None:
            return Check(assumed, products, cost_of(folded, requirements), None, None, "")
        if assumed.verdict == "changes":
            module, polynomials = _fitted(module, inputs)
        given = {part.name: inputs.of(part) for part in inputs.parts}
        ranges = {name: _range_of(values) for name, values in given.items()}
        made = compiled(module, given, name="check", preprocessing=ranges, requirements=requirements)
        return Check(assumed, products, made.report, made, polynomials, "")
    except CompileError as error:
        return Check(assumed, products, None, None, polynomials, str(error))


def _inputs(shape: Shapes | None, calibration: Given | None) -> Inputs:
    """Calibration inputs; without any two of zeros, which have the shapes."""
    if calibration is None:
        if shape is None:
            raise CompileError("input_shape or calibration must be given: nothing else says what the model takes")
        sizes = shape if isinstance(shape, Mapping) else {"image": shape}
        zeros = {name: np.zeros((2, *size)) for name, size in sizes.items()}
        return as_inputs(zeros if isinstance(shape, Mapping) else zeros["image"])
    inputs = as_inputs(calibration)
    require_finite(inputs.values, "calibration inputs")
    held = {part.name: part.shape for part in inputs.parts}
    if shape is not None and held != (shape if isinstance(shape, Mapping) else dict.fromkeys(held, shape)):
        raise CompileError(f"calibration inputs have shapes {held}, and input_shape is {shape}: leave one of them out")
    return inputs


def _fitted(module: nn.Module, inputs: Inputs) -> tuple[nn.Module, PolynomialReport]:
    import torch

    from heinfer.convert import polynomialize

    kinds = [x.dtype for x in (*module.parameters(), *module.buffers()) if x.is_floating_point()]
    return polynomialize(module, torch.tensor(inputs.values, dtype=kinds[0] if kinds else torch.float32))


def _range_of(values: Array) -> Preprocessing:
    """What lets through all of some inputs, and no more."""
    low, high = float(values.min()), float(values.max())
    return Preprocessing(divisor=1, mean=(0,), std=(1,), low=low, high=high if high > low else low + 1, kind="values")


def _products(folded: Network) -> int:
    """Of ciphertexts, one after the other, at most."""
    depth: dict[int, int] = {-1: 0}
    for position, (node, reads) in enumerate(zip(folded.nodes, folded.reads, strict=True)):
        depth[position] = max(depth[i] for i in reads) + _of_node(node)
    return max(depth.values())


def _of_node(node: Node) -> int:
    if isinstance(node.operator, Chebyshev):
        return depth_of(node.operator.degree)
    return int(isinstance(node.operator, Square | Product))

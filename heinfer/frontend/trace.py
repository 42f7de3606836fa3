"""Tracing with torch.fx: every call of a module or function becomes one operator, or an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.modules import LEAVES, module_operator
from heinfer.network.ir import Network, Node
from heinfer.network.operators import Flatten, Operator


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Return the network that a module in evaluation mode computes.

    Args:
        module: a chain of supported layers, put in evaluation mode; its weights are read as float64.
        input_shape: shape of one input without the batch axis.

    Raises:
        UnsupportedOperatorError: names the operator and the module path.
        ShapeError: names the layer whose input does not fit.
    """
    tracer = _Tracer()
    if tracer.is_leaf_module(module, ""):
        module = nn.Sequential(module)  # the tracer always looks inside what it is given
    graph = tracer.trace(module.eval())
    modules = dict(module.named_modules())
    nodes: list[Node] = []
    previous: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "placeholder":
            previous = _first_input(node, previous)
        elif node.op == "output":
            _require_chain(node, node.args[0], previous)
        else:
            _require_chain(node, node.args[0] if node.args else None, previous)
            operator = _operator(node, modules)
            previous = node
            if operator is not None:
                nodes.append(Node(_path(node), operator))
    network = Network(input_shape, tuple(nodes))
    _ = network.output_shape  # shapes are checked here, where the error can name the layer
    return network


class _Tracer(fx.Tracer):
    """Does not look inside layers that have an operator of their own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES) or super().is_leaf_module(m, module_qualified_name)


def _operator(node: fx.Node, modules: Mapping[str, nn.Module]) -> Operator | None:
    if node.op == "call_module":
        return module_operator(_path(node), modules[str(node.target)])
    if _is_flatten(node):
        return Flatten()
    raise UnsupportedOperatorError(
        f"{_path(node)}: the operator {_operator_name(node)} has no encrypted form; "
        "use Conv2d, Linear, BatchNorm, AvgPool2d, Flatten or heinfer.nn layers"
    )


def _is_flatten(node: fx.Node) -> bool:
    named = node.target is torch.flatten if node.op == "call_function" else node.target == "flatten"
    positions = [*node.args[1:], *node.kwargs.values()]
    return named and positions in ([1], [1, -1])


def _first_input(node: fx.Node, previous: fx.Node | None) -> fx.Node:
    if previous is not None:
        raise UnsupportedOperatorError(f"{node.name}: a network takes one input, this is a second one")
    return node


def _require_chain(node: fx.Node, argument: Any, previous: fx.Node | None) -> None:
    if argument is not previous:
        raise UnsupportedOperatorError(
            f"{_path(node)}: reads something else than the layer before it; branches and sums are not supported yet"
        )


def _path(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def _operator_name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))

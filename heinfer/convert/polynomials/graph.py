"""Calls in a traced model: what they read, what they were given, where they are."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.nn import functional

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.paths import users_path

_AT_THE_END = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid)
_SPELT = ("softmax", "log_softmax", "sigmoid", "logsigmoid")
_FUNCTIONS = {getattr(place, name) for place in (torch, functional) for name in _SPELT if hasattr(place, name)}


def graph_of(model: nn.Module, example: Tensor) -> tuple[fx.GraphModule, str]:
    """A copy of a model as a graph without a softmax or sigmoid of scores (n, classes) at its end, and its path.

    The largest score stays the largest without it. That of a picture stays: its values count.

    Raises:
        UnsupportedOperatorError: when the forward cannot be followed by torch.fx.
    """
    try:
        held = copy.deepcopy(model).eval()
        traced = fx.GraphModule(held, _Tracer().trace(held))
    except Exception as error:  # a forward may do anything
        raise UnsupportedOperatorError(
            f"the model's forward cannot be followed by torch.fx: {error}; write it without branches on values"
        ) from error
    output = next(node for node in traced.graph.nodes if node.op == "output")
    last = output.args[0]
    if not isinstance(last, fx.Node) or not _is_at_the_end(traced, last):
        return traced, ""
    with torch.no_grad():
        if traced(example).dim() > 2:
            return traced, ""
    output.replace_input_with(last, read(last))
    path = users_path(str(last.target)) if last.op == "call_module" else path_of(last)
    if not last.users:
        traced.graph.erase_node(last)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced, path


class _Tracer(fx.Tracer):
    """Takes nodes of ONNX files as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return hasattr(m, "averaged") or super().is_leaf_module(m, module_qualified_name)


def aten(node: fx.Node) -> str:
    """The name of a call that torch.export made, else nothing."""
    return str(node.target._schema.name).removeprefix("aten::") if isinstance(node.target, OpOverload) else ""


def _is_at_the_end(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), _AT_THE_END)
    return node.op in ("call_function", "call_method") and (
        node.target in _FUNCTIONS or node.target in _SPELT or aten(node) in _SPELT
    )


def read(node: fx.Node) -> Any:
    """The first tensor that a call reads."""
    return node.args[0] if node.args else node.kwargs["input"]


def path_of(node: fx.Node) -> str:
    """Of the module that a function is called in, and the call's name."""
    inside = list(node.meta.get("nn_module_stack", {}))
    path = users_path(inside[-1]) if inside else ""
    return f"{path}.{node.name}" if path else node.name


def constant(traced: fx.GraphModule, given: Any) -> Any:
    """What a call was given, with the model's own parameters and buffers in the places of nodes that read them."""
    if isinstance(given, fx.Node) and given.op == "get_attr":
        found: Any = traced
        for name in str(given.target).split("."):
            found = getattr(found, name)
        return found
    return given


def computed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that depend on the input."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(one in found for one in node.all_input_nodes):
            found.add(node)
    return found

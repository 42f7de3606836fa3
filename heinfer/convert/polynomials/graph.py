"""Calls in a traced model: what they read, what they were given, where they are."""

from __future__ import annotations

from typing import Any

from torch import fx


def read(node: fx.Node) -> Any:
    """The first tensor that a call reads."""
    return node.args[0] if node.args else node.kwargs["input"]


def path_of(node: fx.Node) -> str:
    """Of the module that a function is called in, and the call's name."""
    inside = list(node.meta.get("nn_module_stack", {}))
    return f"{inside[-1]}.{node.name}" if inside and inside[-1] else node.name


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

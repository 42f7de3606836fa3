"""Tracing with torch.fx: every call of a module or function becomes one operator, or an error that names it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from heinfer.errors import CompileError, UnsupportedOperatorError
from heinfer.frontend.functions import function_operator, is_size, makes_new_tensor, tensors_read
from heinfer.frontend.modules import LEAVES, module_operator
from heinfer.network.ir import INPUT, Network, Node
from heinfer.network.joints import Joint
from heinfer.network.operators import Operator


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Return the network that a module in evaluation mode computes.

    Args:
        module: supported layers, their sums (``+``) and concatenations of channels, put in evaluation mode; its weights
            are read as float64.
        input_shape: shape of one input without the batch axis.

    Raises:
        CompileError: when the module is none, such as a state_dict.
        UnsupportedOperatorError: names the operator and the module path.
        ShapeError: names the layer whose input does not fit.
    """
    _require_module(module)
    tracer = _Tracer()
    if tracer.is_leaf_module(module, ""):
        module = nn.Sequential(module)  # the tracer always looks inside what it is given
    try:
        graph = tracer.trace(module.eval())
    except fx.proxy.TraceError as error:
        raise UnsupportedOperatorError(f"the model's forward cannot be followed with any input: {error}") from error
    network = _Translation(dict(module.named_modules()), input_shape).network(graph)
    if network.nodes:
        _ = network.output_shape  # shapes are checked here, where the error can name the layer
    return network


def _require_module(module: object) -> None:
    if isinstance(module, nn.Module) and not isinstance(module, torch.jit.ScriptModule):
        return
    if isinstance(module, nn.Module):
        found = "a TorchScript module, whose layers cannot be read: "
    elif isinstance(module, Mapping):
        found = "a state_dict or other mapping: build the network, load the state_dict into it, and "
    elif isinstance(module, type):
        found = f"the class {module.__name__}: make one of it, load its weights, and "
    else:
        found = f"a {type(module).__name__}: "
    raise CompileError(f"the model is {found}give the nn.Module itself")


class _Proxy(fx.Proxy):
    """Tells ``x += y`` from ``x + y``, which torch.fx does not, and what to write for ``len(x)``."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {}, name="add")

    def __len__(self) -> int:
        raise UnsupportedOperatorError(f"{self.node.name}: len of a tensor is not known yet; write x.shape[0]")


class _Tracer(fx.Tracer):
    """Does not look inside layers that have an operator of their own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES) or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _Translation:
    """From a graph of calls to nodes; what does nothing at inference stands for what it reads."""

    def __init__(self, modules: Mapping[str, nn.Module], input_shape: tuple[int, ...]) -> None:
        self.modules = modules
        self.input_shape = input_shape
        self.nodes: list[Node] = []
        self.position: dict[fx.Node, int] = {}

    def network(self, graph: fx.Graph) -> Network:
        for node in graph.nodes:
            if node.op == "placeholder":
                self._take_input(node)
            elif node.op == "output":
                return Network(self.input_shape, self._leading_to(node.args[0]))
            else:
                self._take_call(node)
        raise UnsupportedOperatorError("the module returns nothing")

    def _take_input(self, node: fx.Node) -> None:
        if self.position:
            raise UnsupportedOperatorError(f"{node.name}: a network takes one input, this is a second one")
        self.position[node] = INPUT

    def _take_call(self, node: fx.Node) -> None:
        if is_size(node):
            return  # no tensor: what reads it knows what to make of it
        path = _path(node)
        if node.op == "call_module":
            found: Operator | Joint | None = module_operator(path, self.modules[str(node.target)])
        else:
            found = function_operator(path, node)
        inputs = tuple(self._position(path, x) for x in tensors_read(node))
        if node.target is operator.iadd:
            self._require_unread(path, node)
        if found is None:
            self.position[node] = inputs[0]
            return
        self.position[node] = len(self.nodes)
        self.nodes.append(Node(path, found, None if inputs == (len(self.nodes) - 1,) else inputs))

    def _position(self, path: str, x: Any) -> int:
        if not isinstance(x, fx.Node) or x not in self.position:
            raise UnsupportedOperatorError(f"{path}: reads {x}, which is no tensor of the network")
        return self.position[x]

    def _require_unread(self, path: str, node: fx.Node) -> None:
        """``x += y`` is x + y only where nobody reads x afterwards, by whatever name."""
        changed = node.args[0]
        assert isinstance(changed, fx.Node)
        if len(changed.users) > 1 or not makes_new_tensor(changed, self.modules):
            raise UnsupportedOperatorError(
                f"{path}: iadd changes a tensor in place that may be read elsewhere; write x = x + y"
            )

    def _leading_to(self, result: Any) -> tuple[Node, ...]:
        """The nodes up to the one that makes the result, which nothing may follow in a network."""
        last = self._position("output", result)
        return tuple(self.nodes[: last + 1])


def _path(node: fx.Node) -> str:
    """The path of a module, or that of the module a function is called in and the function's name."""
    if node.op == "call_module":
        return str(node.target)
    inside = list(node.meta.get("nn_module_stack", {}))
    return f"{inside[-1]}.{node.name}" if inside and inside[-1] else node.name

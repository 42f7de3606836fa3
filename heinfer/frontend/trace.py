"""Tracing with torch.fx: every call of a module or function becomes one operator, or an error that names it."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn

from heinfer.errors import CompileError, HeinferError, UnsupportedOperatorError
from heinfer.frontend.at_inference import at_inference
from heinfer.frontend.functions import function_operator, is_constant, makes_new_tensor, tensors_read
from heinfer.frontend.modules import LEAVES, module_operator
from heinfer.frontend.problems import require_none
from heinfer.frontend.survey import still_training, survey
from heinfer.network.ir import INPUT, Network, Node
from heinfer.network.joints import Joint
from heinfer.network.operators import Operator

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Return the network that a module computes in evaluation mode; the module stays as it is.

    Args:
        module: supported layers, their sums (``+``) and concatenations of channels; its weights are read as float64.
        input_shape: shape of one input without the batch axis.

    Raises:
        CompileError: when the module is none, such as a state_dict, or its weights cannot be read; hooks, which
            tracing does not see.
        UnsupportedOperatorError: names the operator and the module path.
        ShapeError: names the layer whose input does not fit.
    """
    require_module(module)
    found = survey(module)
    with at_inference(module) as root:
        problems = [*found.problems, *still_training(root)]
        network = _traced(root, input_shape, found.unreadable, problems)
    require_none(problems)
    assert network is not None
    if network.nodes:
        _ = network.output_shape  # shapes are checked here, where the error can name the layer
    return network


def as_called(root: nn.Module) -> nn.Module:
    """A module whose parts have the paths that the nodes of its network have."""
    return nn.Sequential(root) if _Tracer().is_leaf_module(root, "") else root


def _traced(
    root: nn.Module, input_shape: tuple[int, ...], unreadable: frozenset[int], problems: list[CompileError]
) -> Network | None:
    """The network, or None where something more was added to the problems."""
    tracer = _Tracer(unreadable)
    root = as_called(root)  # the tracer always looks inside what it is given
    modules = dict(root.named_modules())
    translation = _Translation(modules, input_shape, unreadable, problems)
    if id(root) in unreadable:
        return None
    try:
        graph = tracer.trace(root)
    except HeinferError as error:
        problems.append(UnsupportedOperatorError(str(error)))
    except Exception as error:  # a forward may do anything with what stands for its input
        problems.append(
            UnsupportedOperatorError(
                f"the model's forward cannot be followed with any input: {error}; write it as calls of layers and "
                "functions of tensors, without branches on their values, and register the layers that it calls"
            )
        )
        problems += _without_operator(modules, unreadable, tracer)
    else:
        return translation.network(graph)
    return None


def _without_operator(
    modules: Mapping[str, nn.Module], unreadable: frozenset[int], tracer: fx.Tracer
) -> Iterator[UnsupportedOperatorError]:
    """What is known to be unsupported where it is not known what is called."""
    for path, part in modules.items():
        if tracer.is_leaf_module(part, path) and id(part) not in unreadable and not isinstance(part, _CONTAINERS):
            try:
                module_operator(path, part)
            except UnsupportedOperatorError as error:
                yield error


def require_module(module: object) -> None:
    """Refuse what is no module whose layers can be read."""
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
    """Does not look inside layers that have an operator of their own, nor where something is wrong already."""

    def __init__(self, unreadable: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.unreadable = unreadable

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, LEAVES) or id(m) in self.unreadable
        return known or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _UnknownInputError(Exception):
    """A call reads what is not known, because of a problem that is named already."""


class _Translation:
    """From a graph of calls to nodes; what does nothing at inference stands for what it reads.

    Attributes:
        unknown: calls whose result is not known, because of a problem that is named already.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        input_shape: tuple[int, ...],
        unreadable: frozenset[int],
        problems: list[CompileError],
    ) -> None:
        self.modules = modules
        self.input_shape = input_shape
        self.unreadable = unreadable
        self.problems = problems
        self.nodes: list[Node] = []
        self.position: dict[fx.Node, int] = {}
        self.unknown: set[fx.Node] = set()

    def network(self, graph: fx.Graph) -> Network | None:
        """The network, or None where something was added to the problems."""
        result: tuple[Node, ...] = ()
        for node in graph.nodes:
            try:
                if node.op == "placeholder":
                    self._take_input(node)
                elif node.op == "output":
                    result = self._leading_to(node.args[0])
                else:
                    self._take_call(node)
            except _UnknownInputError:
                self.unknown.add(node)
            except UnsupportedOperatorError as error:
                self.problems.append(error)
                self.unknown.add(node)
        return None if self.unknown else Network(self.input_shape, result)

    def _take_input(self, node: fx.Node) -> None:
        if self.position:
            raise UnsupportedOperatorError(f"{node.name}: a network takes one input, this is a second one")
        self.position[node] = INPUT

    def _take_call(self, node: fx.Node) -> None:
        if is_constant(node):
            return  # no tensor of the network: what reads it knows what to make of it
        path = _path(node)
        found = self._operator(path, node)
        read = tensors_read(node)
        known = [x for x in read if not (isinstance(x, fx.Node) and x in self.unknown)]
        inputs = tuple(self._position(path, x) for x in known)
        if len(known) < len(read):
            raise _UnknownInputError
        if node.target is operator.iadd:
            self._require_unread(path, node)
        if found is None:
            self.position[node] = inputs[0]
            return
        self.position[node] = len(self.nodes)
        self.nodes.append(Node(path, found, None if inputs == (len(self.nodes) - 1,) else inputs))

    def _operator(self, path: str, node: fx.Node) -> Operator | Joint | None:
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            if id(module) in self.unreadable:
                raise _UnknownInputError
            return module_operator(path, module)
        others = set(node.all_input_nodes) - {x for x in tensors_read(node) if isinstance(x, fx.Node)}
        part_of_unknown = node.target in (operator.getitem, getattr) and node.args[0] in self.unknown
        if others & self.unknown or part_of_unknown:
            raise _UnknownInputError
        return function_operator(path, node)

    def _position(self, path: str, x: Any) -> int:
        if not isinstance(x, fx.Node) or x not in self.position:
            raise UnsupportedOperatorError(
                f"{path}: reads {x}, which is no tensor of the network, one that follows from its input: put constants "
                "into the weights and biases of layers, and return one tensor"
            )
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
        if isinstance(result, fx.Node) and result in self.unknown:
            raise _UnknownInputError
        last = self._position("output", result)
        return tuple(self.nodes[: last + 1])


def _path(node: fx.Node) -> str:
    """The path of a module, or that of the module a function is called in and the function's name."""
    if node.op == "call_module":
        return str(node.target)
    inside = list(node.meta.get("nn_module_stack", {}))
    return f"{inside[-1]}.{node.name}" if inside and inside[-1] else node.name

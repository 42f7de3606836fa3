"""The operator of each supported function of tensors. A new one is one function of a few lines."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.modules import MAKES_NEW_TENSOR
from heinfer.frontend.nothing import COPIES, does_nothing, is_fact
from heinfer.frontend.ways_out import FLATTEN, FUNCTIONS, way_out
from heinfer.network.joints import Add, Concat, Joint
from heinfer.network.operators import Flatten, Operator

_FLATTEN = (torch.flatten, "flatten")
_RESHAPE = (torch.reshape, "reshape", "view")
_ADD = (operator.add, operator.iadd, torch.add, "add")
_CONCAT = (torch.cat, torch.concat, torch.concatenate)


def function_operator(path: str, node: fx.Node) -> Operator | Joint | None:
    """Return the operator of a call of a function or method, None when it does nothing at inference.

    Raises:
        UnsupportedOperatorError: names the path of the call and the function.
    """
    name = _name(node)
    if node.target in _FLATTEN and [*node.args[1:], *node.kwargs.values()] in ([1], [1, -1]):
        return Flatten()
    if node.target in _RESHAPE:
        return _reshape(path, name, node)
    if node.target in _ADD:
        return _add(path, name, node)
    if node.target in _CONCAT:
        return _concat(path, name, node)
    if does_nothing(path, name, node):
        return None
    if name.endswith("_") and not name.endswith("__"):
        raise UnsupportedOperatorError(f"{path}: {name} changes a tensor in place; write x = x + y")
    of_sizes = all(is_constant(x) for x in node.all_input_nodes) and bool(node.all_input_nodes)
    instead = FLATTEN if of_sizes else way_out(name, FUNCTIONS)
    raise UnsupportedOperatorError(f"{path}: the operator {name} has no encrypted form; {instead}")


def is_size(node: fx.Node) -> bool:
    """Whether a call asks a tensor for its sizes, or these for one of them, as in ``x.shape[0]`` and ``x.size(0)``."""
    if node.op == "call_method":
        return node.target == "size"
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and is_size(node.args[0])
    return node.target is getattr and node.args[1] == "shape"


def is_constant(node: fx.Node) -> bool:
    """Whether a node is no tensor that depends on the input: a parameter, a size, a type; what reads it is named."""
    return node.op == "get_attr" or is_size(node) or is_fact(node)


def tensors_read(node: fx.Node) -> tuple[Any, ...]:
    """What a supported call reads: the arguments that ought to be tensors of the network."""
    if node.target in _ADD:
        terms = (*node.args, *(node.kwargs[name] for name in ("input", "other") if name in node.kwargs))
        return tuple(x for x in terms if not _is_zero(x)) or terms
    first = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    return tuple(first) if node.target in _CONCAT and isinstance(first, list | tuple) else (first,)


def makes_new_tensor(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the result of a call shares no memory with any other tensor."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], MAKES_NEW_TENSOR)
    return node.target in (*_ADD, *_CONCAT, *COPIES)


def _reshape(path: str, name: str, node: fx.Node) -> Flatten:
    """Of the shapes that there are, the flat ones: (batch, -1), (batch, size) and (-1, size)."""
    shape = [*node.args[1:], *node.kwargs.values()]
    match list(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape:
        case [fx.Node() as batch, -1] if _is_batch(batch):
            return Flatten()
        case [fx.Node() as batch, int(size)] if _is_batch(batch):
            return Flatten(size)
        case [-1, int(size)]:
            return Flatten(size)
    raise UnsupportedOperatorError(f"{path}: {name} is supported where it flattens all but the batch axis; {FLATTEN}")


def _is_batch(node: fx.Node) -> bool:
    """Whether a call asks how many inputs there are."""
    return is_size(node) and [*node.args[1:], *node.kwargs.values()] == [0]


def _add(path: str, name: str, node: fx.Node) -> Add | None:
    """A sum of two; zero and another is that other, with which ``sum`` begins."""
    given = len(node.args) + len({*node.kwargs} & {"input", "other"})
    if node.kwargs.get("alpha", 1) != 1 or given != 2 or {*node.kwargs} - {"alpha", "input", "other"}:
        raise UnsupportedOperatorError(f"{path}: {name} is supported of two tensors without factor, as in x + y")
    return Add() if len(tensors_read(node)) == 2 else None


def _is_zero(x: Any) -> bool:
    return isinstance(x, int | float) and x == 0


def _concat(path: str, name: str, node: fx.Node) -> Concat:
    options = [*node.args[1:], *node.kwargs.values()] if node.args else list(node.kwargs.values())[1:]
    if options != [1]:
        raise UnsupportedOperatorError(f"{path}: {name} is supported along the channels only, dim=1")
    return Concat()


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))

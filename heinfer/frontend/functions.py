"""The operator of each supported function of tensors. A new one is one function of a few lines."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.modules import MAKES_NEW_TENSOR
from heinfer.network.joints import Add, Concat, Joint
from heinfer.network.operators import Flatten, Operator

_FLATTEN = (torch.flatten, "flatten")
_ADD = (operator.add, operator.iadd, torch.add, "add")
_CONCAT = (torch.cat, torch.concat, torch.concatenate)


def function_operator(path: str, node: fx.Node) -> Operator | Joint:
    """Return the operator of a call of a function or method.

    Raises:
        UnsupportedOperatorError: names the path of the call and the function.
    """
    name = _name(node)
    if node.target in _FLATTEN and [*node.args[1:], *node.kwargs.values()] in ([1], [1, -1]):
        return Flatten()
    if node.target in _ADD:
        return _add(path, name, node)
    if node.target in _CONCAT:
        return _concat(path, name, node)
    if name.endswith("_") and not name.endswith("__"):
        raise UnsupportedOperatorError(f"{path}: {name} changes a tensor in place; write x = x + y")
    raise UnsupportedOperatorError(
        f"{path}: the operator {name} has no encrypted form; use Conv2d, Linear, BatchNorm, AvgPool2d, Flatten, "
        "x + y, torch.cat or heinfer.nn layers"
    )


def tensors_read(node: fx.Node) -> tuple[Any, ...]:
    """What a supported call reads: the arguments that ought to be tensors of the network."""
    if node.target in _ADD:
        return (*node.args, *(node.kwargs[name] for name in ("input", "other") if name in node.kwargs))
    first = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    return tuple(first) if node.target in _CONCAT and isinstance(first, list | tuple) else (first,)


def makes_new_tensor(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the result of a call shares no memory with any other tensor."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], MAKES_NEW_TENSOR)
    return node.target in (*_ADD, *_CONCAT)


def _add(path: str, name: str, node: fx.Node) -> Add:
    if node.kwargs.get("alpha", 1) != 1 or len(tensors_read(node)) != 2 or {*node.kwargs} - {"alpha", "input", "other"}:
        raise UnsupportedOperatorError(f"{path}: {name} is supported of two tensors without factor, as in x + y")
    return Add()


def _concat(path: str, name: str, node: fx.Node) -> Concat:
    options = [*node.args[1:], *node.kwargs.values()] if node.args else list(node.kwargs.values())[1:]
    if options != [1]:
        raise UnsupportedOperatorError(f"{path}: {name} is supported along the channels only, dim=1")
    return Concat()


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))

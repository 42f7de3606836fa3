"""Functions and methods that return what they take, at inference and as far as float64 is concerned."""

from __future__ import annotations

import operator
from inspect import signature
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from heinfer.errors import UnsupportedOperatorError

COPIES = (torch.clone, "clone")
"""Whose result shares no memory with what they take."""

_SAME = (*COPIES, torch.detach, "detach", "contiguous", "cpu", torch.positive, "positive", operator.pos)
_REAL = (torch.float32, torch.float64)
_CASTS = ("to", "type", "float", "double", "type_as")
_ROUNDS = ("half", "bfloat16", "int", "long", "short", "char", "byte", "bool")
_ROUNDED = "is rounding that the compiled network would not follow: leave it out"
_DROPOUT = (
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
)
_BUILT_IN_DROPOUT = (torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout)


def does_nothing(path: str, name: str, node: fx.Node) -> bool:
    """Whether a call does nothing at inference.

    Raises:
        UnsupportedOperatorError: names a dropout that is never off, and a type of lower precision.
    """
    if node.target in _SAME:
        return True
    if node.target in _CASTS:
        return _keeps_precision(path, name, node)
    if node.target in _ROUNDS:
        raise UnsupportedOperatorError(f"{path}: {name} {_ROUNDED}")
    if node.target in (*_DROPOUT, *_BUILT_IN_DROPOUT):
        return _is_off(path, name, node)
    return False


def is_fact(node: fx.Node) -> bool:
    """Whether a call asks a tensor for its type or device."""
    return node.target is getattr and node.args[1] in ("dtype", "device")


def _keeps_precision(path: str, name: str, node: fx.Node) -> bool:
    """What tensors are asked for their type has been found to be float32 or float64, on the CPU."""
    options = {key: x for key, x in node.kwargs.items() if key not in ("non_blocking", "copy", "memory_format")}
    for to in (*node.args[1:], *options.values()):
        if isinstance(to, bool | fx.Node) or to in _REAL or str(to) == "cpu":
            continue
        raise UnsupportedOperatorError(f"{path}: {name} {to} {_ROUNDED}")
    return True


def _is_off(path: str, name: str, node: fx.Node) -> bool:
    options: dict[str, Any]
    if node.target in _DROPOUT:
        bound = signature(node.target).bind(*node.args, **node.kwargs)
        bound.apply_defaults()
        options = bound.arguments
    else:
        options = dict(zip(("input", "p", "train"), node.args, strict=False)) | dict(node.kwargs)
    if options["p"] == 0 or options.get("training", options.get("train")) is False:
        return True
    raise UnsupportedOperatorError(
        f"{path}: {name} is on at inference too: write training=self.training, or take nn.Dropout"
    )

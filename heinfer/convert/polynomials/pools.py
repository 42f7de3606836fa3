"""Max pools in a traced model, and the average pools of the same windows that take their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from heinfer.convert.polynomials.graph import aten

_POOL_MODULES: dict[type[nn.Module], type[nn.Module]] = {
    nn.MaxPool1d: nn.AvgPool1d,
    nn.MaxPool2d: nn.AvgPool2d,
    nn.MaxPool3d: nn.AvgPool3d,
    nn.AdaptiveMaxPool1d: nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool2d: nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool3d: nn.AdaptiveAvgPool3d,
}
_POOL_FUNCTIONS: dict[str, type[nn.Module]] = {
    **{f"max_pool{n}d": kind for n, kind in enumerate((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), 1)},
    **{
        f"adaptive_max_pool{n}d": kind
        for n, kind in enumerate((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), 1)
    },
}


def average_pool(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The average pool in the place of a max pool; None where a call is none, or has no average: importing names it."""
    if node.op == "call_module":
        module: Any = traced.get_submodule(str(node.target))
        if hasattr(module, "averaged"):  # a node of an ONNX file
            average: nn.Module | None = module.averaged()
            return average
        kind = _POOL_MODULES.get(type(module))
        return None if kind is None else _averaged(kind, vars(module))
    kind = _dispatched(node)
    if node.op != "call_function" or kind is None:
        return None
    adaptive = kind.__name__.startswith("Adaptive")
    own = ["output_size"] if adaptive else ["kernel_size", "stride", "padding", "dilation", "ceil_mode"]
    names = ["input", *own, "return_indices"]
    return _averaged(kind, dict(zip(names, node.args, strict=False)) | dict(node.kwargs))


def _averaged(kind: Any, given: Mapping[str, Any]) -> nn.Module | None:
    dilation = given.get("dilation", 1)
    if given.get("return_indices", False) or set(dilation if isinstance(dilation, tuple) else (dilation,)) != {1}:
        return None
    made: nn.Module
    if "output_size" in given:
        made = kind(given["output_size"])
    else:
        kernel, ceil = given["kernel_size"], bool(given.get("ceil_mode", False))
        stride, padding = given.get("stride") or kernel, given.get("padding", 0)
        made = kind(kernel, stride, padding, ceil_mode=ceil, count_include_pad=False)  # never the largest either
    return made


def _dispatched(node: fx.Node) -> type[nn.Module] | None:
    for name, kind in _POOL_FUNCTIONS.items():
        ways = (getattr(functional, name), getattr(functional, f"_{name}", None), getattr(torch, name, None))
        if node.target in ways or aten(node) == name:
            return kind
    return None

"""The calls of activations in a model, each a module of its own; and max pools, which become average pools."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.nn import functional

from heinfer.errors import UnsupportedOperatorError
from heinfer.nn.chebyshev import ChebyshevActivation

_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus, nn.LogSigmoid, nn.Softsign, nn.Hardshrink, nn.Softshrink,
    nn.Tanhshrink,
)  # fmt: skip
_NAMES = [
    "relu",
    "relu6",
    "leaky_relu",
    "prelu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "tanh",
    "sigmoid",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "softplus",
    "logsigmoid",
    "softsign",
    "hardshrink",
    "softshrink",
    "tanhshrink",
    "clamp",
    "clamp_min",
    "clamp_max",
    "clip",
]
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_SPELT = frozenset(name + end for name in _NAMES for end in ("", "_"))
_FUNCTIONS = frozenset(getattr(place, name) for place in (torch, functional) for name in _SPELT if hasattr(place, name))
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


class Site(nn.Module):
    """One call of an activation: at first the activation itself, then a mixture of it and a polynomial.

    Attributes:
        path: in the original model.
        kind: the activation's name.
        polynomial: once it is fitted.
        norm: batch normalisation before the polynomial, where it was put in.
        normalised: whether what it reads comes out of a normalisation, with nothing but moves, sums and pools between.
        dense: whether what it reads comes from a layer along the last axis.
        share: of the polynomial in what it gives, 0 to 1.
        excess: of the last call, how far values were outside of the polynomial's interval.
    """

    def __init__(self, path: str, kind: str, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.path, self.kind, self.share = path, kind, 1.0
        self.activation = activation
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.polynomial: ChebyshevActivation | None = None
        self.norm: nn.Module | None = None
        self.normalised, self.dense = True, False
        self.watch: Callable[[Tensor], None] | None = None
        self.excess = torch.zeros(())

    def of_numbers(self, x: Tensor) -> Tensor:
        """The activation of numbers (n,), whatever their channel: with the mean slope of a PReLU."""
        if isinstance(self.activation, nn.PReLU):
            return functional.prelu(x, self.activation.weight.detach().mean().reshape(1))
        return self.activation(x)

    def forward(self, x: Tensor) -> Tensor:
        """The activation of x, or its polynomial, or both in shares."""
        if self.norm is not None:
            x = self.norm(x)
        if self.watch is not None:
            self.watch(x)
        if self.polynomial is None:
            return self.activation(x)
        t = (x - self.polynomial.center.reshape(1, -1, *(1,) * (x.dim() - 2))) / self.polynomial.radius.max()
        self.excess = functional.relu(t.abs() - 1).square().mean()
        found: Tensor = self.polynomial(x)
        return found if self.share == 1 else self.share * found + (1 - self.share) * self.activation(x)


def with_sites(model: nn.Module) -> tuple[fx.GraphModule, list[Site], int]:
    """A copy of a model in which every call of an activation is a site, its sites, and how many max pools it had.

    Raises:
        UnsupportedOperatorError: when the forward cannot be followed by torch.fx.
    """
    model = copy.deepcopy(model).eval()
    try:
        traced = fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:  # a forward may do anything
        raise UnsupportedOperatorError(
            f"the model's forward cannot be followed by torch.fx: {error}; write it without branches on values"
        ) from error
    sites: list[Site] = []
    pools = 0
    last = _last(traced.graph)
    computed = _computed(traced.graph)
    for node in list(traced.graph.nodes):
        if node not in computed:
            continue  # of parameters alone: a constant, whatever its function
        if node is last and _is_softmax(traced, node):
            continue
        site = _site(traced, node)
        if site is not None:
            sites.append(site)
            layers = _layers_before(traced, _read(node))
            site.normalised = any(isinstance(layer, _NORMS) for layer in layers)
            site.dense = any(isinstance(layer, nn.Linear | nn.LayerNorm) for layer in layers)
            _put(traced, node, f"activation_{len(sites)}", site)
            continue
        pool = _pool(traced, node)
        if pool is not None:
            pools += 1
            _put(traced, node, f"pool_{pools}", pool)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced, sites, pools


class _Tracer(fx.Tracer):
    """Takes nodes of ONNX files as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return hasattr(m, "averaged") or super().is_leaf_module(m, module_qualified_name)


def without_sites(traced: fx.GraphModule) -> fx.GraphModule:
    """The polynomials in their places."""
    for name, part in list(traced.named_children()):
        if isinstance(part, Site):
            assert part.polynomial is not None
            whole = part.polynomial if part.norm is None else nn.Sequential(part.norm, part.polynomial)
            setattr(traced, name, whole)
    traced.recompile()
    return traced


def _computed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that depend on the input."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(read in found for read in node.all_input_nodes):
            found.add(node)
    return found


def _layers_before(traced: fx.GraphModule, node: fx.Node) -> list[nn.Module]:
    """The layers with weights that a node comes from, with neither another one nor an activation between."""
    found: list[nn.Module] = []
    waiting, met = [node], {node}
    while waiting:
        one = waiting.pop()
        part = traced.get_submodule(str(one.target)) if one.op == "call_module" else None
        if isinstance(part, (*_WEIGHTED, *_NORMS)):
            found.append(part)
        elif not isinstance(part, Site):
            fresh = [read for read in one.all_input_nodes if read not in met]
            met.update(fresh)
            waiting += fresh
    return found


def _works_in_place(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(traced.get_submodule(str(node.target)), "inplace", False))
    spelt = str(getattr(node.target, "__name__", node.target))
    return bool(node.kwargs.get("inplace", False)) or spelt.endswith("_")


def _read_the_result(node: fx.Node) -> None:
    """Let calls that come later and read what this one changes in place read what it gives."""
    source, later = _read(node), node.next
    while later.op != "root":
        later.replace_input_with(source, node)
        later = later.next


def _put(traced: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> None:
    if _works_in_place(traced, node):
        _read_the_result(node)
    traced.add_submodule(name, module)
    with traced.graph.inserting_before(node):
        new = traced.graph.call_module(name, (_read(node),))
    node.replace_all_uses_with(new)
    traced.graph.erase_node(node)


def _read(node: fx.Node) -> Any:
    return node.args[0] if node.args else node.kwargs["input"]


def _site(traced: fx.GraphModule, node: fx.Node) -> Site | None:
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        if not isinstance(module, _MODULES):
            return None
        single = copy.deepcopy(module)
        if hasattr(single, "inplace"):
            single.inplace = False
        return Site(str(node.target), type(module).__name__, single)
    is_function = node.op == "call_function" and (node.target in _FUNCTIONS or _aten(node) in _SPELT)
    is_method = node.op == "call_method" and node.target in _SPELT
    if not (is_function or is_method):
        return None
    function: Any = node.target if is_function else getattr(Tensor, str(node.target))
    rest = node.args[1:] if node.args else ()
    options = {key: x for key, x in node.kwargs.items() if key not in ("inplace", "input")}
    if any(isinstance(x, fx.Node) for x in (*rest, *options.values())):
        return None
    name = (_aten(node) or str(getattr(function, "__name__", node.target))).rstrip("_")
    return Site(_path(node), name, lambda x: function(x.clone(), *rest, **options))


def _pool(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The average pool in the place of a max pool; None where a call is none, or has no average: importing names it."""
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        averaged: Any = getattr(module, "averaged", None)  # of a node of an ONNX file
        if averaged is not None:
            average: nn.Module | None = averaged()
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


def _aten(node: fx.Node) -> str:
    """The name of a call that torch.export made, else nothing."""
    return str(node.target._schema.name).removeprefix("aten::") if isinstance(node.target, OpOverload) else ""


def _dispatched(node: fx.Node) -> type[nn.Module] | None:
    for name, kind in _POOL_FUNCTIONS.items():
        if _aten(node) == name:
            return kind
        ways = (getattr(functional, name), getattr(functional, f"_{name}", None), getattr(torch, name, None))
        if node.target in ways:
            return kind
    return None


def _last(graph: fx.Graph) -> Any:
    output = next(node for node in graph.nodes if node.op == "output")
    return output.args[0]


def _is_softmax(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a call is a sigmoid at the end, which is left to whoever reads the scores."""
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.Sigmoid | nn.LogSigmoid)
    return node.target in (torch.sigmoid, functional.sigmoid, functional.logsigmoid, "sigmoid")


def _path(node: fx.Node) -> str:
    inside = list(node.meta.get("nn_module_stack", {}))
    return f"{inside[-1]}.{node.name}" if inside and inside[-1] else node.name

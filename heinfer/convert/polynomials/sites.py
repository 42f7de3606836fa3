"""The calls of activations in a model, each a module of its own; and max pools, which become average pools."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from heinfer.errors import UnsupportedOperatorError
from heinfer.nn.chebyshev import ChebyshevActivation

_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus, nn.LogSigmoid, nn.Softsign, nn.Hardshrink, nn.Softshrink,
    nn.Tanhshrink,
)  # fmt: skip
_NAMES = """relu relu_ relu6 leaky_relu prelu elu selu celu gelu silu mish tanh sigmoid hardtanh hardsigmoid hardswish
    softplus logsigmoid softsign clamp"""
_FUNCTIONS = frozenset(
    getattr(place, name) for place in (torch, functional) for name in _NAMES.split() if hasattr(place, name)
)
_METHODS = frozenset(("relu", "relu_", "tanh", "tanh_", "sigmoid", "sigmoid_", "clamp", "clamp_"))
_POOL_MODULES = {nn.MaxPool1d: nn.AvgPool1d, nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}
_POOL_FUNCTIONS = {"max_pool1d": nn.AvgPool1d, "max_pool2d": nn.AvgPool2d, "max_pool3d": nn.AvgPool3d}


class Site(nn.Module):
    """One call of an activation: at first the activation itself, then a mixture of it and a polynomial.

    Attributes:
        path: in the original model.
        kind: the activation's name.
        polynomial: once it is fitted.
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
        self.watch: Callable[[Tensor], None] | None = None
        self.excess = torch.zeros(())

    def of_numbers(self, x: Tensor) -> Tensor:
        """The activation of numbers (n,), whatever their channel: with the mean slope of a PReLU."""
        if isinstance(self.activation, nn.PReLU):
            return functional.prelu(x, self.activation.weight.detach().mean().reshape(1))
        return self.activation(x)

    def forward(self, x: Tensor) -> Tensor:
        """The activation of x, or its polynomial, or both in shares."""
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
        traced = fx.symbolic_trace(model)
    except Exception as error:  # a forward may do anything
        raise UnsupportedOperatorError(
            f"the model's forward cannot be followed by torch.fx: {error}; write it without branches on values"
        ) from error
    sites: list[Site] = []
    pools = 0
    last = _last(traced.graph)
    for node in list(traced.graph.nodes):
        if node is last and _is_softmax(traced, node):
            continue
        site = _site(traced, node)
        if site is not None:
            sites.append(site)
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


def without_sites(traced: fx.GraphModule) -> fx.GraphModule:
    """The polynomials in their places."""
    for name, part in list(traced.named_children()):
        if isinstance(part, Site):
            assert part.polynomial is not None
            setattr(traced, name, part.polynomial)
    traced.recompile()
    return traced


def _put(traced: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> None:
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
    is_function = node.op == "call_function" and node.target in _FUNCTIONS
    is_method = node.op == "call_method" and node.target in _METHODS
    if not (is_function or is_method):
        return None
    function: Any = node.target if is_function else getattr(Tensor, str(node.target))
    rest = node.args[1:] if node.args else ()
    options = {key: x for key, x in node.kwargs.items() if key not in ("inplace", "input")}
    if any(isinstance(x, fx.Node) for x in (*rest, *options.values())):
        return None
    name = str(getattr(function, "__name__", node.target)).rstrip("_")
    return Site(_path(node), name, lambda x: function(x.clone(), *rest, **options))


def _pool(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        kind = next((to for of, to in _POOL_MODULES.items() if type(module) is of), None)
        if kind is None or module.dilation not in (1, (1, 1), (1, 1, 1)):
            return None
        return _average(kind, module.kernel_size, module.stride, module.padding, bool(module.ceil_mode))
    kind = _dispatched(node)
    if node.op != "call_function" or kind is None:
        return None
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return _average(
        kind, given["kernel_size"], given.get("stride"), given.get("padding", 0), bool(given.get("ceil_mode", False))
    )


def _dispatched(node: fx.Node) -> Any:
    for name, kind in _POOL_FUNCTIONS.items():
        if node.target in (getattr(functional, name), getattr(torch, name)):
            return kind
    return None


def _average(kind: Any, kernel: Any, stride: Any, padding: Any, ceil: bool) -> nn.Module:
    made: nn.Module = kind(kernel, stride or kernel, padding, ceil_mode=ceil, count_include_pad=False)
    return made


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

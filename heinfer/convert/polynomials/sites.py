"""The calls of activations and normalisations in a model, each a module of its own; max pools become average pools."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from heinfer.convert.polynomials.graph import aten, computed, constant, path_of, read
from heinfer.convert.polynomials.norms import FixedNorm, fixed_norm
from heinfer.convert.polynomials.pools import average_pool
from heinfer.frontend.paths import users_path
from heinfer.nn.chebyshev import ChebyshevActivation

_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus, nn.LogSigmoid, nn.Softsign, nn.Hardshrink, nn.Softshrink,
    nn.Tanhshrink,
)  # fmt: skip
_NAMES = [
    "relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh", "sigmoid",
    "hardtanh", "hardsigmoid", "hardswish", "softplus", "logsigmoid", "softsign", "hardshrink", "softshrink",
    "tanhshrink", "clamp", "clamp_min", "clamp_max", "clip",
]  # fmt: skip
_NORMS = (nn.modules.batchnorm._NormBase, FixedNorm)
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_SPELT = frozenset(name + end for name in _NAMES for end in ("", "_"))
_FUNCTIONS = frozenset(getattr(place, name) for place in (torch, functional) for name in _SPELT if hasattr(place, name))


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

    @property
    def exact_on(self) -> tuple[float, float] | None:
        """Where the activation is a polynomial that is not of degree one."""
        return (-3.0, 3.0) if self.kind.lower() == "hardswish" else None

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


@dataclass
class Prepared:
    """A copy of a model whose calls are modules that can be observed and replaced.

    Attributes:
        module: the model, traced.
        sites: the calls of activations, in their order.
        norms: those that divide by statistics of their input.
        pools: how many max pools became average pools.
    """

    module: fx.GraphModule
    sites: list[Site] = field(default_factory=list)
    norms: list[FixedNorm] = field(default_factory=list)
    pools: int = 0


def prepared(model: fx.GraphModule) -> Prepared:
    """A copy of a model in which every call of an activation is a site, and every max pool an average pool."""
    traced = copy.deepcopy(model)
    found = Prepared(traced)
    of_input = computed(traced.graph)
    for node in list(traced.graph.nodes):
        if node in of_input:  # what is not is a constant
            _replace(found, node)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return found


def _replace(found: Prepared, node: fx.Node) -> None:
    traced = found.module
    site = _site(traced, node)
    if site is not None:
        found.sites.append(site)
        layers = _layers_before(traced, read(node))
        site.normalised = any(isinstance(layer, _NORMS) for layer in layers)
        site.dense = any(isinstance(layer, nn.Linear) or _is_dense(layer) for layer in layers)
        _put(traced, node, f"activation_{len(found.sites)}", site)
        return
    norm = fixed_norm(traced, node)
    if norm is not None:
        found.norms.append(norm)
        _put(traced, node, f"norm_{len(found.norms)}", norm)
        return
    pool = average_pool(traced, node)
    if pool is not None:
        found.pools += 1
        _put(traced, node, f"pool_{found.pools}", pool)


def _is_dense(layer: nn.Module) -> bool:
    return isinstance(layer, FixedNorm) and layer.is_dense


def without_sites(traced: fx.GraphModule) -> fx.GraphModule:
    """The polynomials in their places."""
    for name, part in list(traced.named_children()):
        if isinstance(part, Site):
            assert part.polynomial is not None
            whole = part.polynomial if part.norm is None else nn.Sequential(part.norm, part.polynomial)
            setattr(traced, name, whole)
    traced.recompile()
    return traced


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
    source, later = read(node), node.next
    while later.op != "root":
        later.replace_input_with(source, node)
        later = later.next


def _put(traced: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> None:
    if _works_in_place(traced, node):
        _read_the_result(node)
    traced.add_submodule(name, module)
    with traced.graph.inserting_before(node):
        new = traced.graph.call_module(name, (read(node),))
    node.replace_all_uses_with(new)
    traced.graph.erase_node(node)


def _site(traced: fx.GraphModule, node: fx.Node) -> Site | None:
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        if not isinstance(module, _MODULES):
            return None
        single = copy.deepcopy(module)
        if hasattr(single, "inplace"):
            single.inplace = False
        return Site(users_path(str(node.target)), type(module).__name__, single)
    is_function = node.op == "call_function" and (node.target in _FUNCTIONS or aten(node) in _SPELT)
    is_method = node.op == "call_method" and node.target in _SPELT
    if not (is_function or is_method):
        return None
    function: Any = node.target if is_function else getattr(Tensor, str(node.target))
    rest = [constant(traced, x) for x in (node.args[1:] if node.args else ())]
    options = {key: constant(traced, x) for key, x in node.kwargs.items() if key not in ("inplace", "input")}
    if any(isinstance(x, fx.Node) for x in (*rest, *options.values())):
        return None
    name = (aten(node) or str(getattr(function, "__name__", node.target))).rstrip("_")
    if name == "prelu":
        (slopes,) = (*rest, *options.values())
        module = nn.PReLU(slopes.numel(), dtype=slopes.dtype)
        module.weight.data = slopes.detach().clone()
        return Site(path_of(node), name, module)
    return Site(path_of(node), name, lambda x: function(x.clone(), *rest, **options))

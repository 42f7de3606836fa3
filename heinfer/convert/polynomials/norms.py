"""Layer, group and instance norms, which divide by statistics of the input at hand: made linear by fixed ones."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from heinfer.convert.polynomials.graph import constant, path_of
from heinfer.frontend.paths import users_path


class FixedNorm(nn.Module):
    """y = (x - mean(x)) factor weight + bias: at first the norm itself, then with a factor that is a constant.

    The mean is linear in x and stays that of the input at hand. The factor is 1 / sqrt(variance + eps), of the variance
    that the norm has seen on the average. A group or instance norm has one for each group of channels; a layer norm has
    one, wherever it is: one along the last axis then is the same everywhere, as convolutions are.

    Args:
        path, kind: in the original model, and what it is called there.
        shape: the last axes, which are normalised together; empty for groups of channels, which are axis 1.
        groups: of channels; 1 for a layer norm.
        weight, bias: of ``shape``, or (channels,); None for 1 and 0.
        eps: as torch has it.

    Attributes:
        error: root mean square of what the constant misses on what was seen, in parts of the norm's output.
    """

    factor: Tensor

    def __init__(
        self, path: str, kind: str, shape: tuple[int, ...], groups: int, weight: Any, bias: Any, eps: float
    ) -> None:
        super().__init__()
        self.path, self.kind, self.shape, self.groups, self.eps = path, kind, shape, groups, eps
        self.weight = None if weight is None else nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.register_buffer("factor", torch.ones(groups))
        self.fixed, self.error = False, 0.0
        self._rows, self._size = 0, 0.0
        self._sums = torch.zeros(4, groups, dtype=torch.float64)

    @property
    def is_dense(self) -> bool:
        """Whether it is a map along the last axis alone."""
        return len(self.shape) == 1

    def forward(self, x: Tensor) -> Tensor:
        """The norm of x; with the constant, once it is fixed."""
        if not self.fixed:
            return self._observed(x)
        if self.is_dense:  # as a layer along the last axis it joins the one after it
            n = self.shape[0]
            matrix = torch.eye(n, dtype=x.dtype) - torch.full((n, n), 1 / n, dtype=x.dtype)
            scale = self.factor if self.weight is None else self.factor * self.weight
            return functional.linear(x, matrix * scale.reshape(-1, 1), self.bias)
        if self.shape:
            axes = tuple(range(-len(self.shape), 0))
            return self._shifted(self._weighted((x - x.mean(axes, keepdim=True)) * self.factor))
        grouped = x.reshape(x.shape[0], self.groups, -1, *x.shape[2:])
        beside = (-1, *(1,) * (x.dim() - 1))
        centred = grouped - grouped.mean(tuple(range(2, grouped.dim())), keepdim=True)
        return self._shifted(self._weighted((centred * self.factor.reshape(beside)).flatten(1, 2)))

    def fix(self) -> None:
        """Take the mean variance of what was seen."""
        variance, exact, mixed, plain = self._sums
        factor = (variance / max(1, self._rows) + self.eps).rsqrt()
        missed = float((exact - 2 * factor * mixed + factor.square() * plain).sum())
        self.error = sqrt(max(missed, 0.0) / max(self._size, 1e-300))
        self.factor, self.fixed = factor.to(self.factor), True

    def _observed(self, x: Tensor) -> Tensor:
        """The norm itself; sums up, over rows (n, groups, elements), what the constant and its error follow from."""
        rows = x.reshape(-1, 1, prod(self.shape)) if self.shape else x.reshape(len(x), self.groups, -1)
        centred = rows - rows.mean(2, keepdim=True)
        variance = centred.square().mean(2, keepdim=True)
        factor = (variance + self.eps).rsqrt()
        result = self._shifted(self._weighted((centred * factor).reshape(x.shape)))
        self.factor = self.factor.to(x.dtype)
        with torch.no_grad():
            energy = self._weighted(centred.reshape(x.shape)).reshape(rows.shape).double().square().sum(2)
            of = variance[:, :, 0].double(), factor[:, :, 0].double()
            self._sums += torch.stack([of[0].sum(0), *((energy * of[1] ** k).sum(0) for k in (2, 1, 0))])
            self._rows += len(rows)
            self._size += float(result.double().square().sum())
        return result

    def _weighted(self, x: Tensor) -> Tensor:
        return x if self.weight is None else x * self._beside(self.weight, x)

    def _shifted(self, x: Tensor) -> Tensor:
        return x if self.bias is None else x + self._beside(self.bias, x)

    def _beside(self, parameter: Tensor, x: Tensor) -> Tensor:
        return parameter if self.shape else parameter.reshape(-1, *(1,) * (x.dim() - 2))


def fixed_norm(traced: fx.GraphModule, node: fx.Node) -> FixedNorm | None:
    """The norm in the place of a call that divides by statistics of its input; None where a call does not."""
    if node.op == "call_module":
        return _of_module(users_path(str(node.target)), traced.get_submodule(str(node.target)))
    if node.op != "call_function":
        return None
    for name, names in _FUNCTIONS.items():
        if node.target in (getattr(functional, name), getattr(torch, name)):
            given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
            return _of_call(path_of(node), name, {key: constant(traced, x) for key, x in given.items()})
    return None


_FUNCTIONS = {
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
}


def _of_module(path: str, module: nn.Module) -> FixedNorm | None:
    kind = type(module).__name__
    if isinstance(module, nn.LayerNorm):
        return FixedNorm(path, kind, module.normalized_shape, 1, module.weight, module.bias, module.eps)
    if isinstance(module, nn.GroupNorm):
        return FixedNorm(path, kind, (), module.num_groups, module.weight, module.bias, module.eps)
    if isinstance(module, nn.modules.instancenorm._InstanceNorm) and not module.track_running_stats:
        return FixedNorm(path, kind, (), module.num_features, module.weight, module.bias, module.eps)
    return None


def _of_call(path: str, name: str, given: dict[str, Any]) -> FixedNorm | None:
    weight, bias, eps = given.get("weight"), given.get("bias"), float(given.get("eps", 1e-5))
    if any(isinstance(x, fx.Node) for x in (weight, bias)):
        return None  # computed: no parameter that a module could hold
    if name == "layer_norm":
        return FixedNorm(path, name, tuple(given["normalized_shape"]), 1, weight, bias, eps)
    return FixedNorm(path, name, (), int(given["num_groups"]), weight, bias, eps)

"""Functions and layers that compute, as random programs call them: by name, what each makes of an example."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from drawn import Draw, Function, Held, Maker
from random_pools import adaptive, interpolated, norm, norm_function, pool
from torch import Tensor, nn

from heinfer.nn import BlockCirculantConv2d, BlockCirculantLinear, ChebyshevActivation, FFConv2d, PolyActivation

aten: Any = torch.ops.aten


def _by_constant(function: str) -> Maker:
    """With a number, or a parameter for each channel, each element of an input, or each place of the last axis."""

    def make(d: Draw, x: Tensor) -> Function:
        number = d.one([0.5, -2.0, 1e-3, 1e3, 3.0])
        named = getattr(aten, function)
        first = d.yes(0.3) and function not in ("rsub", "div", "divide", "true_divide")
        if d.yes(0.4):
            return lambda y: named(y, number)
        shape = d.one([(x.shape[1], *(1,) * (x.dim() - 2)), tuple(x.shape[1:]), tuple(x.shape[-1:])])
        held = d.weights(*shape)
        if "div" in function:
            held = held + torch.where(held.abs() < 1e-7, 1.0, 0.0)
        return Held(lambda y, p: named(p, y) if first else named(y, p), held)

    return make


def _alpha(function: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function:
        axis, alpha = d.axis(x), d.one([2.0, -0.5, 1.0])
        return lambda y: getattr(aten, function)(y, y.flip(axis), alpha=alpha)

    return make


def _plain(function: Any) -> Maker:
    return lambda d, x: function


def _dropout(function: str) -> Maker:
    named = getattr(aten, function)
    if function == "native_dropout":
        return _plain(lambda y: named(y, 0.3, False)[0])
    return _plain(lambda y: named(y, 0.3, False))


def _power(d: Draw, x: Tensor) -> Function:
    n = d.one([2, 3, 3, 4, 5])
    return lambda y: y**n


def _lerp(d: Draw, x: Tensor) -> Function:
    axis, weight = d.axis(x), d.one([0.3, 1.5])
    return Held(lambda y, end: torch.lerp(y.flip(axis), end.expand_as(y), weight), d.tensor(*x.shape[1:]))


def _lerp_of_two(d: Draw, x: Tensor) -> Function:
    axis = d.axis(x)
    return lambda y: torch.lerp(y, y.flip(axis), 0.5 * y)


def _addcmul(d: Draw, x: Tensor) -> Function:
    axis, value = d.axis(x), d.one([1.0, -0.5])
    return Held(lambda y, p: torch.addcmul(y.flip(axis), y, p, value=value), d.tensor(*x.shape[1:]))


def _addcmul_of_two(d: Draw, x: Tensor) -> Function:
    axis = d.axis(x)
    return lambda y: torch.addcmul(y, y.flip(axis), y, value=0.5)


def _horner(d: Draw, x: Tensor) -> Function:
    a, b, c = d.tensor(3).tolist()
    return lambda y: ((0.3 * a * y + b) * y + c) * y - 1


def _poly(d: Draw, x: Tensor) -> Function:
    made = PolyActivation(x.shape[1])
    return d.weighted(made) if d.yes() else made.double()


def _chebyshev(d: Draw, x: Tensor) -> Function:
    degree, channels = d.number(1, 15), d.one([1, x.shape[1]])
    middle, radius = x.mean(), 1.2 * (x - x.mean()).abs().max().clamp(min=1e-9)
    series = d.tensor(channels, degree + 1) / torch.arange(1.0, degree + 2)
    return ChebyshevActivation(series, middle.expand(channels).clone(), radius.expand(channels).clone()).double()


def _convolution(along: int, transposed: bool = False) -> Maker:
    kind: Any = getattr(nn, f"Conv{'Transpose' if transposed else ''}{along}d")

    def make(d: Draw, x: Tensor) -> Function | None:
        if x.dim() != along + 2:
            return None
        channels = x.shape[1]
        groups = d.divisor(channels) if d.yes(0.4) else 1
        out = groups * d.number(1, max(1, 5 // groups))
        kernel = tuple(d.number(1, 3) for _ in range(along))
        stride = tuple(d.number(1, 2) for _ in range(along))
        dilation = tuple(d.number(1, 2) for _ in range(along))
        options: dict[str, Any] = {"groups": groups, "dilation": dilation, "bias": d.yes(0.8)}
        if transposed:
            more = tuple(d.number(0, max(s, k) - 1) for s, k in zip(stride, dilation, strict=True))
            padding = tuple(d.number(0, 1) for _ in range(along))
            return d.weighted(kind(channels, out, kernel, stride, padding, more, **options))
        if d.yes(0.3):
            return d.weighted(kind(channels, out, kernel, 1, d.one(["same", "valid"]), **options))
        mode = d.one(["zeros", "zeros", "circular", "replicate", *(["reflect"] if along < 3 else [])])
        padding = tuple(d.number(0, 2) for _ in range(along))
        return d.weighted(kind(channels, out, kernel, stride, padding, padding_mode=mode, **options))

    return make


def _general(d: Draw, x: Tensor) -> Function | None:
    """torch's general convolution."""
    if x.dim() != 4:
        return None
    transposed = d.yes()
    weight = d.weights(x.shape[1], 2, 2, 3) if transposed else d.weights(2, x.shape[1], 2, 3)
    options = ((1, 2), (1, 0), (1, 1), transposed, (0, 1) if transposed else (0, 0), 1)
    return Held(lambda y, w: aten.convolution(y, w, None, *options), weight)


def _structured(d: Draw, x: Tensor) -> Function | None:
    """heinfer.nn's convolutions and dense layers."""
    if x.dim() == 2:
        return d.weighted(BlockCirculantLinear(x.shape[1], 4, 2))
    if x.dim() != 4:
        return None
    if d.yes():
        return d.weighted(FFConv2d(x.shape[1], 3, (3, 3), 2, (1, 1), (1, 1)))
    return d.weighted(BlockCirculantConv2d(x.shape[1], 4, (3, 3), 2, (1, 1), (1, 1)))


def _linear(d: Draw, x: Tensor) -> Function:
    return d.weighted(nn.Linear(x.shape[-1], d.number(1, 8), bias=d.yes()))


def _matrix(function: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function | None:
        n, out = x.shape[-1], d.number(1, 6)
        match function:
            case "mm":
                return None if x.dim() != 2 else Held(lambda y, w: y.mm(w), d.weights(n, out))
            case "mv":
                return None if x.dim() != 2 else Held(lambda y, w: y.mv(w).unsqueeze(1), d.weights(n))
            case "addmm":
                beta, alpha = d.one([1.0, -0.5]), d.one([1.0, 2.0])
                if x.dim() != 2:
                    return None
                return Held(
                    lambda y, b, w: torch.addmm(b, y, w, beta=beta, alpha=alpha), d.tensor(out), d.weights(n, out)
                )
            case "matrix first":
                return None if x.dim() < 3 else Held(lambda y, w: w @ y, d.weights(out, x.shape[-2]))
            case "vector":
                return None if x.dim() < 3 else Held(lambda y, w: y @ w, d.weights(n))
        return Held(lambda y, w: y @ w, d.weights(n, out))

    return make


def _einsum(d: Draw, x: Tensor) -> Function:
    axes = "ijkl"[: x.dim() - 1]
    summed = d.one(axes)
    constant = f"{summed}z"
    result = "".join(d.rng.permutation(list(axes.replace(summed, "") + "z")))
    held = d.weights(x.shape[1 + axes.index(summed)], 3)
    if d.yes():
        return Held(lambda y, w: torch.einsum(f"b{axes},{constant}->b{result}", y, w), held)
    return Held(lambda y, w: torch.einsum(f"{constant},b{axes}->b{axes}", w, y), held)


def _bilinear(d: Draw, x: Tensor) -> Function | None:
    n = x.shape[-1]
    if n > 6:
        return None
    return Held(lambda y, layer: layer(y, y.flip(-1)), d.weighted(nn.Bilinear(n, n, d.number(1, 3))))


def _reduced(function: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function:
        axes = sorted({d.axis(x) for _ in range(d.number(1, 2))})
        kept = x.dim() - len(axes) < 2 or d.yes()
        return lambda y: getattr(y, function)(axes, keepdim=kept)

    return make


def _cumsum(d: Draw, x: Tensor) -> Function:
    axis = d.axis(x)
    return lambda y: y.cumsum(axis)


def _like(function: str) -> Maker:
    """Constants in the shape of a tensor, added to it."""

    def make(d: Draw, x: Tensor) -> Function:
        if function == "full_like":
            return lambda y: y - torch.full_like(y, 2.0)
        if function == "new_full":
            return lambda y: y - y.new_full(y.shape, 1.5)
        if function == "fill":
            return lambda y: y + aten.fill(y, 2.5)
        if function.startswith("new"):
            return lambda y: y + getattr(y, function)(y.shape[1:])
        return lambda y: y - 3 * getattr(torch, function)(y)

    return make


def _size(d: Draw, x: Tensor) -> Function:
    return lambda y: y.reshape(aten.sym_size(y, 0), prod(y.shape[1:])) / y.size(1)


def _asserted(y: Tensor) -> Tensor:
    aten._assert_tensor_metadata(y, None, None, y.dtype)
    return y


LAYERS: dict[str, Maker] = {
    **{
        f"{name} constant": _by_constant(name)
        for name in ("add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide")
    },
    **{f"{name} of two": _alpha(name) for name in ("add", "sub", "rsub")},
    "neg": _plain(lambda y: -y),
    "negative": _plain(torch.negative),
    "positive": _plain(torch.positive),
    "to": _plain(lambda y: y.to(torch.float64, copy=True)),
    "type_as": _plain(lambda y: y.type_as(y)),
    "_to_copy": _plain(lambda y: aten._to_copy(y, dtype=torch.float64)),
    **{
        name: _dropout(name)
        for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout")
    },
    "lerp": _lerp,
    "addcmul": _addcmul,
    **{
        name: _like(name)
        for name in ("fill", "full_like", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like")
    },
    "size": _size,
    "assert": _plain(_asserted),
    **{f"conv{n}d": _convolution(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _convolution(n, transposed=True) for n in (1, 2, 3)},
    "convolution": _general,
    "structured": _structured,
    "linear": _linear,
    **{name: _matrix(name) for name in ("matmul", "mm", "mv", "addmm", "matrix first", "vector")},
    "einsum": _einsum,
    "batch_norm": norm("BatchNorm"),
    "instance_norm": norm("InstanceNorm"),
    **{name: norm_function(name) for name in ("_native_batch_norm_legit_no_training", "native_batch_norm")},
    **{f"avg_pool{n}d": pool(n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": adaptive(f"adaptive_avg_pool{n}d", n) for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": adaptive(f"_adaptive_avg_pool{n}d", n) for n in (2, 3)},
    "linear1d": interpolated("linear", 1),
    "bilinear2d": interpolated("bilinear", 2),
    "bicubic2d": interpolated("bicubic", 2),
    "trilinear3d": interpolated("trilinear", 3),
    "bilinear2d aa": interpolated("bilinear", 2, antialias=True),
    "bicubic2d aa": interpolated("bicubic", 2, antialias=True),
    "mean": _reduced("mean"),
    "sum": _reduced("sum"),
    "cumsum": _cumsum,
}
PRODUCTS: dict[str, Maker] = {
    "square": _plain(torch.square),
    "pow": _power,
    "horner": _horner,
    "lerp of two": _lerp_of_two,
    "addcmul of two": _addcmul_of_two,
    "bilinear": _bilinear,
    "poly": _poly,
    "chebyshev": _chebyshev,
}
"""What takes levels."""

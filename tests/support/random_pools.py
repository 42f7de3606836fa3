"""Normalisation, pools and interpolation, as random programs call them."""

from __future__ import annotations

from typing import Any

import torch
from drawn import Draw, Function, Held, Maker
from torch import Tensor, nn
from torch.nn import functional

aten: Any = torch.ops.aten


def norm(kind: str) -> Maker:
    """By running statistics; dimensions as the tensor has them."""

    def make(d: Draw, x: Tensor) -> Function | None:
        if x.dim() > 5 or (kind == "InstanceNorm" and x.dim() < 3):
            return None
        named: Any = getattr(nn, f"{kind}{max(1, x.dim() - 2)}d")
        return d.normalising(named(x.shape[1], affine=d.yes(0.8), track_running_stats=True), x)

    return make


def norm_function(function: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function:
        n = x.shape[1]
        held = (1 + 0.2 * d.tensor(n), d.tensor(n), 0.1 * d.tensor(n), 0.5 + d.tensor(n).abs())
        if function.startswith("_"):
            return Held(lambda y, *p: aten._native_batch_norm_legit_no_training(y, *p, 0.1, 1e-5)[0], *held)
        return Held(lambda y, *p: aten.native_batch_norm(y, *p, False, 0.1, 1e-5)[0], *held)

    return make


def pool(along: int) -> Maker:
    def make(d: Draw, x: Tensor) -> Function | None:
        if x.dim() != along + 2:
            return None
        kernel = tuple(d.number(1, 3) for _ in range(along))
        options: dict[str, Any] = {
            "stride": tuple(d.number(1, 3) for _ in range(along)) if d.yes(0.7) else None,
            "padding": tuple(d.number(0, k // 2) for k in kernel),
            "ceil_mode": d.yes(0.3),
            "count_include_pad": d.yes(),
        }
        if along > 1 and d.yes(0.2):
            options["divisor_override"] = d.number(1, 5)
        made: nn.Module = getattr(nn, f"AvgPool{along}d")(kernel, **options)
        return made

    return make


def adaptive(function: str, along: int) -> Maker:
    def make(d: Draw, x: Tensor) -> Function | None:
        sizes = [d.number(1, 4) for _ in range(along)]
        return None if x.dim() != along + 2 else lambda y: getattr(aten, function)(y, sizes)

    return make


def interpolated(mode: str, along: int, antialias: bool = False) -> Maker:
    def make(d: Draw, x: Tensor) -> Function | None:
        if x.dim() != along + 2:
            return None
        options: dict[str, Any] = {"mode": mode, "align_corners": d.yes()}
        if antialias:
            options["antialias"] = True
        if d.yes():
            options["size"] = tuple(d.number(1, 7) for _ in range(along))
        else:
            options["scale_factor"] = d.one([2.0, 1.5, 0.6])
        return lambda y: functional.interpolate(y, **options)

    return make
